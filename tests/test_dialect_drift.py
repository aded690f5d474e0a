"""The dialect of Safepay is what its documentation shows, and `psp dialect compare` finds where another server differs."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import httpx
import pytest

from sandbox.server.dialects.comparison import Difference, first_difference, shape_of
from sandbox.server.dialects.safepay import DIALECT
from tests.harness.command import invoke
from tests.harness.loopback import LoopbackServer, QuietHandler
from tests.harness.receiver import Receiver
from tests.harness.safepay import IBANS, KEY, Safepay, payout_body
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_dialect_safepay_webhooks import subscribe

DOCUMENTED = json.loads(files("sandbox.server.dialects.safepay").joinpath("examples.json").read_text("utf-8"))


def answers(world: World, receiver: Receiver) -> dict[str, Any]:
    """Return an answer of the dialect for each documented example."""
    safepay, hook, secret = subscribe(world, receiver)
    assert secret
    call = safepay.call

    def get(path: str, **params: str) -> Any:
        return call("GET", path, params=params).json()

    body = payout_body("0001")
    found: dict[str, Any] = {"payout": call("POST", "/payout", json=body).json()}
    token = found["payout"]["data"]["token"]
    safepay.until(token, "P_SETTLED")
    events = until(lambda: [r.event for r in receiver.received if r.event["webhook_event_type"] == "payment.settled"])
    wanted = {"status": "WD_DELIVERED", "type": "payment.created"}
    until(lambda: get(f"/webhooks/{hook}/deliveries", **wanted)["data"]["count"] == "1")
    delivery = get(f"/webhooks/{hook}/deliveries", **wanted)
    key = call("POST", "/keys", json={"is_active": True, "name": "second"}).json()
    created = call("POST", "/webhooks", json={"url": receiver.url, "event_types": ["refund.*"], "description": "d"}).json()
    other = created["data"]["endpoint"]["token"]
    safepay.payout("0004")
    return found | {
        "aggregator": get(""),
        "payments": get("/payments", status="P_INITIATED"),
        "charges": get(f"/payments/{token}/charges"),
        "title": get("/title-fetch", iban=IBANS["0001"]),
        "title_of_account": get("/title-fetch/v2", account_number="1", bank_name="habib_bank_limited"),
        "account_info": get("/account-info", iban=IBANS["0001"], with_title_fetch="true"),
        "ledger_account": get("/ledger/accounts"),
        "key": key,
        "keys": get("/keys"),
        "nothing": call("PUT", f"/keys/{key['data']['id']}", json={"is_active": True}).json(),
        "webhook_created": created,
        "webhook_rotated": call("PUT", f"/webhooks/{other}/rotate", json={}).json(),
        "webhook": get(f"/webhooks/{hook}"),
        "webhooks": get("/webhooks"),
        "deliveries": delivery,
        "delivery": get(f"/webhooks/{hook}/deliveries/{delivery['data']['deliveries'][0]['token']}"),
        "event": events[0],
        "unauthorized": Safepay(world, key="wrong").call("GET", "/payments").json(),
        "bad_request": call("POST", "/payout", json={}).json(),
        "not_found": get("/payments/pm_x"),
        "conflict": call("POST", "/payout", json=body | {"amount": "201"}).json(),
    }


def test_each_documented_example_has_the_shape_of_our_answer(world: World, receiver: Receiver) -> None:
    found = answers(world, receiver)
    assert set(found) == set(DOCUMENTED["examples"])
    differences = {
        name: first_difference(shape_of(found[name]), shape_of(example["body"]))
        for name, example in DOCUMENTED["examples"].items()
    }
    assert {name: difference for name, difference in differences.items() if difference} == {}
    assert DOCUMENTED["source"].startswith("https://")
    assert all(re.search(r" at [0-9a-f]{8}$", example["from"]) for example in DOCUMENTED["examples"].values())


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        ({"a": "1.50"}, {"a": "150"}, ("a", "decimal number", "digits")),
        ({"a": "P_SETTLED"}, {"a": "P_FAILED"}, ("a", "P_SETTLED", "P_FAILED")),
        ({"a": "P_SETTLED"}, {"a": "P_SETTLED", "b": 1}, ("b", "absent", "number")),
        ({"a": None}, {"a": {"b": 1}}, ("a", "null", "object")),
        ({"a": ""}, {"a": "x y"}, ("a", "empty text", "text")),
        ([{"a": 1}], [{"a": 2}, {"a": 3}], None),
        ([], [{"a": 2}], None),
        ({"a": [{"r": "ROLE_A"}, {"r": "ROLE_B"}]}, {"a": [{"r": "ROLE_B"}]}, None),
        ({"a": "pm_019a5c3e-7b10-7a42-8000-2a0000000001"}, {"a": "019a5c3e-7b10-7a42-8000-2a0000000001"}, None),
        ({"message": "Some text"}, {"message": "Another one"}, None),
    ],
)
def test_shapes_differ_by_members_types_and_values_of_enumerations(ours: Any, theirs: Any, difference: Any) -> None:
    assert first_difference(shape_of(ours), shape_of(theirs)) == (None if difference is None else Difference(*difference))


# ---- psp dialect compare


def compare(world: World, base_url: str, other: World, key: str | None = None) -> Any:
    account = ["--account", f"agg_{other.merchant_id}", "--key", key or other.api_key]
    operator = ["--url", world.stack.api_url, "--admin-key", world.stack.admin_key]
    return invoke("dialect", "compare", "safepay", "--base-url", base_url, *account, *operator, "--json")


@contextmanager
def standing_in(world: World, before: bytes, after: bytes) -> Iterator[str]:
    """Serve the dialect with a mistake: each answer has the text `after` in place of `before`. Yield the base URL."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name: self.headers[name] for name in (KEY, "content-type") if name in self.headers}
            answer = httpx.request(self.command, world.stack.api_url + self.path, headers=headers, content=body, timeout=60)
            content = answer.content.replace(before, after)
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

    with LoopbackServer(Handler) as server:
        yield f"{server.url}/raastwire"


def test_two_sandboxes_answer_alike_and_the_merchant_of_the_comparison_is_deleted(world: World) -> None:
    result = compare(world, f"{world.stack.api_url}/raastwire", world)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["difference"], len(found["asked"])) == (None, 15)
    operator = {"X-ADMIN-KEY": world.stack.admin_key}
    merchants = httpx.get(f"{world.stack.api_url}/sandbox/v1/merchants?limit=100", headers=operator)
    assert "compared with safepay" not in merchants.text


def test_the_first_difference_is_reported(world: World) -> None:
    with standing_in(world, b'"amount":"1.50"', b'"amount":"150"') as base_url:
        result = compare(world, base_url, world)
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout.splitlines()[0])
    assert found["asked"][-1] == "a payout"
    assert found["difference"] == {"asked": "a payout", "place": "data.amount", "ours": "decimal number", "theirs": "digits"}


@pytest.mark.parametrize(
    ("base_url", "key", "reason"),
    [
        ("https://api.getsafepay.com/raastwire", "a-test-key", "is not a test environment"),
        ("https://dev.api.getsafepay.com.example.com/raastwire", "a-test-key", "is not a test environment"),
        ("https://dev.api.getsafepay.com/raastwire", "sk_live_0123456789", "live key"),
        ("http://dev.api.getsafepay.com/raastwire", "sk_test_0123456789", "Use https"),
    ],
)
def test_nothing_is_called_with_a_live_key_or_elsewhere(
    world: World, base_url: str, key: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpx.Client, "send", lambda *_, **__: pytest.fail("a request was sent"))
    result = compare(world, base_url, world, key)
    assert result.exit_code == 2
    assert reason in result.output
    assert "sk_live_0123456789" not in result.output
    assert DIALECT.comparison is not None
