"""`psp certify --signing safepay` passes a receiver of Safepay's webhooks, and finds the mistakes of others."""

import hmac
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest

from examples.receivers.correct_python import TOLERANCE, Receiver
from sandbox.server.dialects.dialect import load_dialects
from sandbox.server.dialects.registration import BUILT_IN
from sandbox.server.dialects.rendering import wire_formats
from sandbox.webhooks.outbound.sender import WebhookSender
from sandbox.webhooks.receiver_tests.checks import NAMES
from sandbox.webhooks.receiver_tests.judges import Limits
from sandbox.webhooks.receiver_tests.runner import Target
from tests.harness.command import run_json
from tests.harness.world import World
from tests.test_receiver_checks import SECRET, findings, having, served

ORDER = ["P_INITIATED", "P_RECEIVED", "P_FAILED", "P_REJECTED", "P_CANCELLED", "P_SETTLED", "P_REVERSED"]
FORMAT = wire_formats(load_dialects(BUILT_IN, None))["safepay"]
SKIPPED = {"accepts_rotation", "handles_every_change"}
"""Webhooks of Safepay have one signature, and a payment that failed cannot be paid again."""


class SafepayReceiver(Receiver):
    """Verifies and acts as Safepay's pages say. It refuses whatever a sandbox alone would send."""

    def is_valid(self, headers: Mapping[str, str], body: bytes) -> bool:
        assert not {"webhook-id", "x-sandbox-now", "traceparent"} & set(headers)
        return self.is_recent(headers.get("x-sfpy-timestamp", "")) and self.has_signature(headers, body)

    def is_recent(self, stamp: str) -> bool:
        try:
            then = datetime.fromisoformat(stamp)
            return "T" in stamp and abs((datetime.now(UTC) - then).total_seconds()) <= TOLERANCE
        except (ValueError, TypeError):
            return False

    def has_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        given = headers.get("x-sfpy-signature", "").encode("utf-8", "replace")
        content = headers.get("x-sfpy-timestamp", "").encode() + b"." + body
        return hmac.compare_digest(b"sha256=" + hmac.digest(self.key, content, "sha256").hex().encode(), given)

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> int:
        if method != "POST":
            return 405
        if len(body) > self.body_limit:
            return 413
        if not self.is_valid(headers, body):
            return 401
        event = json.loads(body)
        if event["webhook_event_type"] in ("payment.created", "payment.pending_authorization", "payment.settled"):
            payment = event["subject"]["payment"]
            assert (event["webhook_event_type"], event["identifier"]) == (
                headers["x-sfpy-event-type"],
                payment["txn_logs"][-1]["token"],
            )
            version = ORDER.index(payment["status"])
            self.act_on(
                {"id": event["identifier"], "data": {"id": payment["token"], "status": payment["status"], "version": version}}
            )
        return 200


class KeyIsText(SafepayReceiver):
    """Signs with the secret's text."""

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        self.key = secret.removeprefix("whsec_").encode()


class AnyTime(SafepayReceiver):
    """Accepts old webhooks."""

    def is_recent(self, stamp: str) -> bool:
        return True


class ActsTwice(SafepayReceiver):
    """Forgets what it has received."""

    def is_duplicate(self, event: dict[str, Any]) -> bool:
        return False


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = WebhookSender([ip_network("127.0.0.0/8")])
    yield sender
    await sender.close()


def test_certify_passes_a_receiver_that_was_written_from_safepays_pages(world: World) -> None:
    secret = SECRET.removeprefix("whsec_")
    with served(SafepayReceiver(secret)) as server:
        arguments = ("certify", server.url, "--secret", secret, "--signing", "safepay", "--probe-url", server.probe_url)
        found = run_json(world, *arguments)
    outcomes = {check["name"]: check["outcome"] for check in found["checks"]}
    assert outcomes == {name: "skipped" if name in SKIPPED else "passed" for name in NAMES}


@pytest.mark.parametrize(
    ("kind", "fails"),
    [
        (KeyIsText, {"accepts_valid"}),
        (AnyTime, {"refuses_stale_timestamp", "refuses_future_timestamp"}),
        (ActsTwice, {"handles_duplicate", "handles_concurrent_duplicates"}),
    ],
)
async def test_certify_finds_the_mistakes_of_others(
    sender: WebhookSender, kind: type[SafepayReceiver], fails: set[str]
) -> None:
    with served(kind(SECRET)) as server:
        target = Target(server.url, SECRET, "safepay", server.probe_url, wire=FORMAT)
        found = await findings(sender, target, Limits(probe=0.2))
    assert having(found, "failed") == fails, found


@pytest.mark.parametrize("signing", ["safepay", "custom"])
def test_a_secret_whose_base64_is_decoded_must_be_base64(world: World, signing: str) -> None:
    custom = {"header": "X-S", "algorithm": "sha256", "encoding": "hex", "template": "{body}", "key_encoding": "base64"}
    body = {"url": "http://127.0.0.1:9/", "secret": "not base64!", "signing": signing}
    refused = world.post("/sandbox/v1/receiver-tests", body | ({"custom_signing": custom} if signing == "custom" else {}))
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "secret")
