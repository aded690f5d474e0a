"""The fixture `psp` leads an adapter of Safepay Raast to the merchant of a test."""

import httpx
import pytest

from psp_sandbox.testing import UsageError, World
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
