"""Adapters in Node and Python, and a verifier in Go, that were written from Safepay's documentation work with the sandbox."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
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


def run(command: Sequence[str], stdin: bytes, code: int, env: dict[str, str]) -> bytes:
    done = subprocess.run(command, cwd=FOLDER, input=stdin, env=env, capture_output=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=COMMANDS)
def adapter(request: pytest.FixtureRequest, world: World) -> Adapter:
    if shutil.which(COMMANDS[request.param][0]) is None:
        pytest.skip(f"{request.param} is not installed")
    return Adapter(request.param, world)


@pytest.fixture(
    params=["node", "python", pytest.param("go", marks=pytest.mark.slow)],
)
def verifier(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, Received], Any]:
    """Return a function that returns the event of a webhook, or None if it is refused."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    command = COMMANDS.get(request.param, [str(tmp_path / "verify")])
    if request.param == "go":
        run(["go", "build", "-o", command[0], "verify.go"], b"", 0, dict(os.environ))

    def verify(secret: str, received: Received) -> Any:
        headers = json.dumps(dict(received.headers))
        return json.loads(run([*command, "verify", secret, headers], received.body, 0, dict(os.environ)))

    return verify


def test_payouts_are_paid_fail_are_returned_or_stay(world: World, adapter: Adapter) -> None:
    ends = {"0001": "P_SETTLED", "0003": "P_FAILED", "0012": "P_REVERSED", "0005": "P_RECEIVED", "0004": "P_INITIATED"}
    ids = {suffix: str(uuid.uuid4()) for suffix in ends}
    for suffix, request_id in ids.items():
        assert adapter("payout", request_id, "200.00", IBANS[suffix])["status"] == "P_INITIATED"
    world.post("/sandbox/v1/clock/advance", {"seconds": 3600})
    for suffix, request_id in ids.items():
        until(lambda request_id=request_id, suffix=suffix: adapter("find", request_id)["status"] == ends[suffix])
    assert adapter("payments", json.dumps({"status": "P_FAILED", "type": "PAYOUT"}))["count"] == "1"
    world.assert_clean()


def test_a_slow_payout_is_received_until_its_bank_ends_it(world: World, adapter: Adapter) -> None:
    world.post("/sandbox/v1/clock/freeze", {})
    for suffix, end in (("0013", "P_SETTLED"), ("0014", "P_FAILED")):
        token = adapter("payout", str(uuid.uuid4()), "200", IBANS[suffix])["token"]
        world.post("/sandbox/v1/clock/advance", {"seconds": 29})
        assert adapter("payment", token)["status"] == "P_RECEIVED"
        world.post("/sandbox/v1/clock/advance", {"seconds": 2})
        assert adapter("payment", token)["status"] == end


def test_a_payout_whose_answer_is_lost_is_repeated_and_paid_once(world: World, adapter: Adapter) -> None:
    before = world.get("/api/v1/balance").json()["available_balance"]
    for lost in ({"kind": "error", "status": 503}, {"kind": "connection_reset"}, {"kind": "truncated_body"}):
        fault = {"target": "api", "match": {"path": "/raastwire/*"}, "count": 1, **lost}
        assert world.post("/sandbox/v1/faults", fault).status_code == 201
    made = adapter("payout", str(uuid.uuid4()), "100", IBANS["0001"])
    assert [fault["hits"] for fault in world.get("/sandbox/v1/faults").json()["data"]] == [1, 1, 1]
    assert [payment["token"] for payment in adapter("all")] == [made["token"]]
    assert int(before.replace(".", "")) - adapter("balance") == 10_000
    charges = adapter("charges", made["token"])
    assert (charges["gross_amount"], charges["net_amount"]) == ("10000", "10000")


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


def test_webhooks_are_retried_five_times_after_a_500_and_dead_after_a_422(
    world: World, adapter: Adapter, receiver: Receiver
) -> None:
    made = adapter("subscribe", receiver.url, "payment.created")
    adapter("payout", str(uuid.uuid4()), "200", IBANS["0004"])
    until(lambda: receiver.received)
    assert adapter("rotate", made["token"]) != made["secret"]
    receiver.respond = lambda _: (422, {}, b"")
    adapter("payout", str(uuid.uuid4()), "200", IBANS["0004"])
    until(lambda: len(receiver.received) == 2)
    until(lambda: [one["status"] for one in adapter("deliveries", made["token"])] == ["WD_DEAD", "WD_DELIVERED"])
    receiver.respond = lambda _: (500, {}, b"")
    world.post("/sandbox/v1/clock/freeze", {})
    adapter("payout", str(uuid.uuid4()), "200", IBANS["0004"])
    world.post("/sandbox/v1/clock/advance", {"seconds": 60})
    until(lambda: adapter("deliveries", made["token"])[0]["attempts"] == 6)


def test_a_verifier_accepts_only_what_is_signed_unchanged_and_young(
    world: World, receiver: Receiver, verifier: Callable[[str, Received], Any]
) -> None:
    safepay = Safepay(world)
    made = safepay.post("/webhooks", {"url": receiver.url, "event_types": ["payment.created"]})
    safepay.payout("0004")
    until(lambda: receiver.received)
    rotated = safepay.put(f"/webhooks/{made['endpoint']['token']}/rotate")["secret"]
    world.post("/sandbox/v1/clock/advance", {"seconds": 3600})
    safepay.payout("0004")
    until(lambda: len(receiver.received) == 2)
    for secret, other, received in zip((made["secret"], rotated), (rotated, made["secret"]), receiver.received, strict=True):
        assert verifier(secret, received) == received.event
        assert verifier(other, received) is None
        assert verifier(secret, replace(received, body=received.body + b" ")) is None
    headers = {**received.headers, "x-sfpy-event-type": "payment.settled"}
    assert verifier(rotated, replace(received, headers=headers)) is None
    assert verifier(rotated, signed_again(received, rotated, age=240)) == received.event
    assert verifier(rotated, signed_again(received, rotated, age=360)) is None


def signed_again(received: Received, secret: str, age: int) -> Received:
    """Return a webhook as it was sent `age` seconds ago."""
    stamp = (datetime.now(UTC) - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")
    mac = hmac.new(base64.b64decode(secret), stamp.encode() + b"." + received.body, hashlib.sha256).hexdigest()
    return replace(received, headers={**received.headers, "x-sfpy-timestamp": stamp, "x-sfpy-signature": f"sha256={mac}"})


class Sdk:
    """Safepay's own SDK, as far as its documentation shows it: functions that are named by method and path.

    It is on no registry. It has the production URL until `setConfig`, and axios sends its calls.
    """

    def __init__(self, document: Any) -> None:
        self.baseURL, self._headers = "https://api.getsafepay.com/raastwire", dict[str, str]()
        self._calls = {
            self._name(method, path): (method, path) for path, methods in document["paths"].items() for method in methods
        }

    @staticmethod
    def _name(method: str, path: str) -> str:
        parts = path.removeprefix("/raastwire/").replace("{aggregator_id}", "{raast_aggregator_id}")
        named = parts.replace("{", "by-").replace("}", "").replace("_", "-").replace("/", "-")
        return method + "".join(word.capitalize() for word in named.split("-"))

    def setConfig(self, *, baseURL: str, headers: dict[str, str]) -> None:
        self.baseURL, self._headers = baseURL, {"Accept": "application/json, text/plain, */*", **headers}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method, path = self._calls[name]

        def call(*, path_: dict[str, str], query: dict[str, Any] | None = None, body: Any = None) -> Any:
            url = self.baseURL + path.removeprefix("/raastwire").format(**path_)
            return httpx.request(method, url, headers=self._headers, params=query, json=body, timeout=60).json()

        return call


def test_the_functions_of_safepays_own_sdk_work_with_another_base_url(world: World) -> None:
    sdk = Sdk(httpx.get(f"{world.stack.api_url}/openapi/safepay.json").json())
    sdk.setConfig(baseURL=f"{world.stack.api_url}/raastwire", headers={"X-SFPY-AGGREGATOR-SECRET-KEY": world.api_key})
    own = {"aggregator_id": f"agg_{world.merchant_id}"}
    assert sdk.getV1AggregatorsByRaastAggregatorId(path_=own)["data"]["is_active"] is True
    body = {"request_id": str(uuid.uuid4()), "amount": "200", "creditor_iban": IBANS["0004"]}
    made = sdk.postV1AggregatorsByRaastAggregatorIdPayout(path_=own, body=body)["data"]
    found = sdk.getV1AggregatorsByRaastAggregatorIdPayments(path_=own, query={"request_id": body["request_id"]})["data"]
    assert (found["count"], found["payments"]) == ("1", [made])
    one = {**own, "payment_id": made["token"]}
    assert sdk.getV1AggregatorsByRaastAggregatorIdPaymentsByPaymentId(path_=one)["data"] == made
    title = sdk.getV1AggregatorsByRaastAggregatorIdTitleFetch(path_=own, query={"iban": IBANS["0001"]})["data"]
    assert title["statusCode"] == 0
    # The official sample reads the top-level message of whatever fails. A wrong key has none there.
    refused = sdk.postV1AggregatorsByRaastAggregatorIdPayout(path_=own, body=body | {"amount": "0"})
    assert refused["message"].startswith("amount ")
    sdk.setConfig(baseURL=sdk.baseURL, headers={"X-SFPY-AGGREGATOR-SECRET-KEY": "sk_live_0123456789"})
    refused = sdk.postV1AggregatorsByRaastAggregatorIdPayout(path_=own, body=body)
    assert (set(refused), refused["error"]["code"]) == ({"api_version", "error"}, "error.unauthorized_access")


def test_no_body_about_a_payment_has_the_whole_iban(world: World, receiver: Receiver) -> None:
    safepay = Safepay(world)
    hook = safepay.post("/webhooks", {"url": receiver.url, "event_types": ["payment.*"]})["endpoint"]["token"]
    bodies: list[str] = []
    for suffix, end in (("0001", "P_SETTLED"), ("0003", "P_FAILED"), ("0012", "P_SETTLED")):
        body = {"request_id": str(uuid.uuid4()), "amount": "200", "creditor_iban": IBANS[suffix]}
        made = safepay.call("POST", "/payout", json=body)
        safepay.until(made.json()["data"]["token"], end)
        bodies += [made.text, safepay.call("POST", "/payout", json=body).text]
        bodies.append(safepay.call("POST", "/payout", json=body | {"amount": "1"}).text)
        bodies.append(safepay.call("GET", f"/payments/{made.json()['data']['token']}").text)
    until(lambda: len(receiver.received) == 9)
    delivery = safepay.get(f"/webhooks/{hook}/deliveries")["deliveries"][0]["token"]
    bodies += [safepay.call("GET", path).text for path in ("/payments", f"/webhooks/{hook}/deliveries/{delivery}")]
    bodies += [received.body.decode() for received in receiver.received]
    assert len(bodies) == 23
    assert [body for body in bodies for suffix in ("0001", "0003", "0012") if IBANS[suffix] in body] == []
    assert "PK93HABB************0001" in bodies[0]
