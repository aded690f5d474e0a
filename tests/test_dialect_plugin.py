"""The fixture `psp` leads an adapter of Safepay Raast to the merchant of a test."""

import json

import httpx
import pytest

from psp_sandbox.testing import UsageError, World
from psp_sandbox.testing.explore.points import Point
from psp_sandbox.testing.explore.rest import Subject, killer
from psp_sandbox.testing.explore.results import At, Kind
from psp_sandbox.testing.webhooks import Received
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
