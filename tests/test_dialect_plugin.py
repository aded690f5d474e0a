"""The fixture `psp` leads an adapter of Safepay Raast to the merchant of a test."""

import json

import httpx
import pytest

from psp_sandbox.testing import UsageError, World
from psp_sandbox.testing.explore.points import Point
from psp_sandbox.testing.explore.rest import Subject, come_to_rest, killer
from psp_sandbox.testing.explore.results import At, Kind
from psp_sandbox.testing.webhooks import Received
from sandbox.server.dialects.comparison import shape_of
from tests.harness.receiver import Receiver
from tests.harness.safepay import KEY, payout_body
from tests.harness.waiting import until
from tests.test_dialect_safepay_webhooks import verify


def test_an_adapter_uses_the_merchant_of_the_test(psp: World, receiver: Receiver) -> None:
    with pytest.raises(UsageError, match="subscribe"):
        _ = psp.safepay.webhook_secret
    assert psp.safepay.subscribe(receiver.url) == psp.safepay.webhook_secret
    url = f"{psp.safepay.url}/v1/aggregators/{psp.safepay.aggregator_id}/payout"
    made = httpx.post(url, json=payout_body(), headers={KEY: psp.safepay.key}).json()["data"]
    psp.advance("10s")
    assert psp.payout(made["token"].removeprefix("pm_")).status == "SUCCESS"
    until(lambda: len(receiver.received) == 3)
    assert "PAYMENT_SETTLED" in {verify(psp.safepay.webhook_secret, one)["code"] for one in receiver.received}


def test_explore_restarts_an_application_at_a_webhook_of_the_dialect(psp: World, receiver: Receiver) -> None:
    psp.safepay.subscribe(receiver.url)
    url = f"{psp.safepay.url}/v1/aggregators/{psp.safepay.aggregator_id}/payout"
    httpx.post(url, json=payout_body(), headers={KEY: psp.safepay.key}).raise_for_status()
    psp.advance("10s")
    until(lambda: len(receiver.received) == 3)
    restarts: list[str] = []
    subject = Subject(psp.client, "", psp.advance, psp.drain, restart=lambda: restarts.append("restarted"))
    point = Point(At.APPLICATION, "payout.succeeded#1", Kind.KILLED_BEFORE_ANSWER, ("payout.succeeded",))
    on_answer = killer(subject, point)
    lost = [one for one in receiver.received if on_answer(Received({}, one.body, None, {}))]
    assert [json.loads(one.body)["code"] for one in lost] == ["PAYMENT_SETTLED"]
    assert restarts == ["restarted"]


def test_explore_forges_webhooks_in_the_form_of_the_dialect(psp: World, receiver: Receiver) -> None:
    (own,) = psp.client.webhook_endpoints.list()  # the plugin's, which would report the forged ones that it gets
    psp.client.webhook_endpoints.delete(own.id)
    secret = psp.safepay.subscribe(receiver.url)
    url = f"{psp.safepay.url}/v1/aggregators/{psp.safepay.aggregator_id}/payout"
    httpx.post(url, json=payout_body(), headers={KEY: psp.safepay.key}).raise_for_status()
    psp.advance("10s")
    until(lambda: len(receiver.received) == 3)
    subject = Subject(psp.client, "", psp.advance, psp.drain)
    assert come_to_rest(subject, [Point(At.EVENT, "payout.succeeded#1", Kind.FORGED, ("payout.succeeded",))]).missed is None
    real, unsigned, wrong = receiver.received[2:]
    assert verify(secret, real)["code"] == "PAYMENT_SETTLED"
    assert not [name for name in unsigned.headers if name.startswith("x-sfpy")]
    with pytest.raises(ValueError, match="signature"):
        verify(secret, wrong)
    assert {name for name in real.headers if name.startswith("x-sfpy")} <= set(wrong.headers)
    for forged in (unsigned.event, wrong.event):
        assert set(shape_of(forged)) == set(shape_of(real.event))
        payment = forged["subject"]["payment"]
        assert (payment["status"], payment["token"]) == ("P_FAILED", real.event["subject"]["payment"]["token"])
        assert (forged["webhook_event_type"], forged["code"]) == ("payment.failed", "PAYMENT_FAILED")
        assert forged["identifier"] == payment["txn_logs"][-1]["token"] == wrong.headers["x-sfpy-event-id"]
