"""Adapters that were written from Safepay's documentation work with the sandbox, in Node and in Python."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.harness.receiver import Received, Receiver
from tests.harness.safepay import IBANS, Safepay
from tests.harness.waiting import until
from tests.harness.world import World

FOLDER = Path(__file__).parent.parent / "examples" / "safepay"
COMMANDS = {"node": ["node", "safepay.mjs"], "python": [sys.executable, "safepay.py"]}


class Adapter:
    """An adapter, run as a command with the environment that leads it to a merchant."""

    def __init__(self, language: str, world: World) -> None:
        self._command = COMMANDS[language]
        self.env = os.environ | {
            "SAFEPAY_BASE_URL": f"{world.stack.api_url}/raastwire",
            "SAFEPAY_AGGREGATOR_ID": f"agg_{world.merchant_id}",
            "SAFEPAY_SECRET_KEY": world.api_key,
        }

    def __call__(self, *arguments: str, stdin: bytes = b"", code: int = 0) -> Any:
        """Run one command, which must exit with `code`, and return what it prints."""
        return json.loads(run([*self._command, *arguments], stdin, code, self.env))

    def verify(self, secret: str, received: Received) -> Any:
        """Return the event of a webhook, or None if the adapter refuses it."""
        headers = received.headers
        return self("verify", secret, headers["x-sfpy-timestamp"], headers["x-sfpy-signature"], stdin=received.body)


def run(command: Sequence[str], stdin: bytes, code: int, env: dict[str, str]) -> bytes:
    done = subprocess.run(command, cwd=FOLDER, input=stdin, env=env, capture_output=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=COMMANDS)
def adapter(request: pytest.FixtureRequest, world: World) -> Adapter:
    if shutil.which(COMMANDS[request.param][0]) is None:
        pytest.skip(f"{request.param} is not installed")
    return Adapter(request.param, world)


def test_payouts_are_paid_fail_are_returned_or_stay_slow(world: World, adapter: Adapter) -> None:
    ends = {"0001": "P_SETTLED", "0003": "P_FAILED", "0012": "P_REVERSED", "0005": "P_RECEIVED", "0004": "P_INITIATED"}
    ids = {suffix: str(uuid.uuid4()) for suffix in ends}
    for suffix, request_id in ids.items():
        assert adapter("payout", request_id, "200.00", IBANS[suffix])["status"] == "P_INITIATED"
    world.post("/sandbox/v1/clock/advance", {"seconds": 3600})
    for suffix, request_id in ids.items():
        until(lambda request_id=request_id, suffix=suffix: adapter("find", request_id)["status"] == ends[suffix])
    world.assert_clean()


def test_a_repeated_payout_is_paid_once_and_a_changed_one_is_refused(adapter: Adapter) -> None:
    request_id = str(uuid.uuid4())
    first = adapter("payout", request_id, "200", IBANS["0004"])
    assert adapter("payout", request_id, "200", IBANS["0004"]) == first == adapter("find", request_id)
    refused = adapter("payout", request_id, "201", IBANS["0004"], code=1)
    assert (refused["status"], refused["code"]) == (409, "error.conflict")
    assert adapter("find", str(uuid.uuid4())) is None


def test_a_wrong_key_or_aggregator_is_an_error_with_a_message(adapter: Adapter) -> None:
    key = adapter.env["SAFEPAY_SECRET_KEY"]
    adapter.env["SAFEPAY_SECRET_KEY"] = "sk_live_0123456789"
    assert adapter("all", code=1)["code"] == "error.unauthorized_access"
    adapter.env |= {"SAFEPAY_SECRET_KEY": key, "SAFEPAY_AGGREGATOR_ID": f"agg_{uuid.uuid4()}"}
    refused = adapter("all", code=1)
    assert (refused["status"], refused["code"]) == (404, "error.not_found")
    assert refused["message"]


def test_25_payments_are_paged_and_titles_are_found_and_refused(world: World, adapter: Adapter) -> None:
    safepay = Safepay(world)
    made = [safepay.payout("0004")["token"] for _ in range(25)]
    assert [payment["token"] for payment in adapter("all")] == made[::-1]
    assert adapter("title", IBANS["0001"])
    assert adapter("title", IBANS["0003"]) is None


def test_webhooks_are_verified_rotated_retried_and_dead(world: World, adapter: Adapter, receiver: Receiver) -> None:
    made = adapter("subscribe", receiver.url, "payment.created")
    adapter("payout", str(uuid.uuid4()), "200", IBANS["0004"])
    (first,) = until(lambda: receiver.received)
    assert adapter.verify(made["secret"], first)["webhook_event_type"] == "payment.created"
    assert adapter.verify(base64.b64encode(b"x" * 32).decode(), first) is None
    secret = adapter("rotate", made["token"])
    receiver.respond = lambda _: (422, {}, b"")
    adapter("payout", str(uuid.uuid4()), "200", IBANS["0004"])
    until(lambda: len(receiver.received) == 2)
    assert adapter.verify(made["secret"], receiver.received[1]) is None
    assert adapter.verify(secret, receiver.received[1])
    until(lambda: [one["status"] for one in adapter("deliveries", made["token"])] == ["WD_DEAD", "WD_DELIVERED"])
    receiver.respond = lambda _: (500, {}, b"")
    world.post("/sandbox/v1/clock/freeze", {})
    adapter("payout", str(uuid.uuid4()), "200", IBANS["0004"])
    world.post("/sandbox/v1/clock/advance", {"seconds": 60})
    until(lambda: adapter("deliveries", made["token"])[0]["attempts"] == 6)


@pytest.mark.slow
def test_the_verifier_in_go_accepts_only_what_is_signed_and_young(tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    program = str(tmp_path / "verify")
    run(["go", "build", "-o", program, "verify.go"], b"", 0, dict(os.environ))
    secret, body = base64.b64encode(b"k" * 32).decode(), b'{"identifier":"txnlog_0"}'
    for age, code in ((0, 0), (600, 1)):
        stamp = (datetime.now(UTC) - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
        mac = hmac.new(b"k" * 32, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        run([program, secret, stamp, f"sha256={mac}"], body, code, dict(os.environ))
        run([program, secret, stamp, f"sha256={mac[:-1]}x"], body, 1, dict(os.environ))
