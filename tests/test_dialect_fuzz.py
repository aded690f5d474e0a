"""No call of a dialect, however odd, is a 5xx or shows anything of ours, and mixed with native calls the books stay right."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from sandbox.server.dialects.safepay.mapping import MAPPING
from tests.harness.safepay import IBANS, KEY, Safepay, payout_body
from tests.harness.waiting import until
from tests.harness.world import Stack, World

_CASES: Final = int(os.environ.get("PSP_FUZZ_CASES", "120"))
"""How many odd calls to make. For a long run, set the variable."""
_RUNS: Final = max(15, _CASES // 100)
_SUFFIXES: Final = st.sampled_from(["0001", "0003", "0004", "0005", "0012"])
_TEXT: Final = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=40)
_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_MEMBERS: Final = st.sampled_from(
    ["request_id", "amount", "creditor_iban", "url", "event_types", "enabled", "description", "is_active", "name"]
)
_GOOD: Final = st.sampled_from(
    [*IBANS.values(), "200", "0.01", str(uuid.UUID(int=7)), ["payment.*"], True, "http://127.0.0.1:9/"]
)
_BODIES: Final = st.dictionaries(_MEMBERS, _JSON | _GOOD, max_size=5) | _JSON
_QUERIES: Final = st.dictionaries(
    st.sampled_from(
        [
            *("limit", "offset", "status", "uetr", "msg_id", "payment_id", "start_date", "end_date", "iban", "type", "x"),
            *("account_number", "bank_name", "alias_type", "alias_value", "value", "event_id", "delivery_id"),
        ]
    ),
    _TEXT | st.integers().map(str) | st.sampled_from([*IBANS.values(), "P_SETTLED", "PAYOUT", "habib_bank_limited", "MOBILE"]),
    max_size=4,
)


@pytest.fixture(scope="module")
def document(stack: Stack) -> Any:
    return httpx.get(f"{stack.api_url}/openapi/safepay.json").json()


def test_the_document_has_each_operation_and_is_listed(stack: Stack, document: Any) -> None:
    (listed,) = [one for one in httpx.get(f"{stack.api_url}/openapi").json()["dialects"] if one["name"] == "safepay"]
    assert httpx.get(stack.api_url + listed["document"]).json() == document
    assert document["components"]["securitySchemes"]["Key"]["name"] == KEY
    assert len([method for methods in document["paths"].values() for method in methods]) == 23
    assert all(path.startswith("/raastwire/v1/aggregators/{aggregator_id}") for path in document["paths"])
    assert "problem" not in json.dumps(document)
    assert httpx.get(f"{stack.api_url}/openapi/none.json").status_code == 404


def _check(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 400, 401, 404, 406, 409), answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    if answer.status_code == 200:
        assert set(body) == {"api_version", "data"}
    else:
        error = body["error"] if answer.status_code == 401 else body
        assert set(error) == {"code", "message"}
        assert error["code"].startswith("error.")
    for ours in ('request_id":"019', "merchant_reference", "sandbox/v1", "/problems/", "/api/v1"):
        assert ours not in answer.text


@settings(max_examples=_CASES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_odd_calls_get_the_dialects_errors(world: World, document: Any, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(document["paths"])))
    method = data.draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]))
    places = {
        "{aggregator_id}": f"agg_{world.merchant_id}",
        "{payment_id}": data.draw(st.sampled_from(["pm_x", f"pm_{uuid.UUID(int=1)}", "%00", "a b"])),
        "{webhook_id}": data.draw(st.sampled_from(["wh_x", f"wh_{uuid.UUID(int=1)}"])),
        "{delivery_id}": f"whd_{uuid.UUID(int=1)}",
        "{key_id}": f"ak_{uuid.UUID(int=1)}",
    }
    for name, value in places.items():
        path = path.replace(name, value)
    raw = data.draw(_BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=30))
    kind = data.draw(st.sampled_from(["application/json", "application/json", "text/plain"]))
    headers = {KEY: world.api_key, "content-type": kind}
    _check(
        httpx.request(method, world.stack.api_url + path, params=data.draw(_QUERIES), content=raw, headers=headers, timeout=60)
    )


@pytest.mark.slow
def test_schemathesis_finds_no_failures(world: World, tmp_path: Path) -> None:
    """Undeclared methods are not checked: they are the dialect's own 404."""
    examples = max(10, _CASES // 40)
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f"""
        seed = 20260131
        workers = 2
        suppress-health-check = ["too_slow"]
        [generation]
        mode = "all"
        max-examples = {examples}
        database = "none"
        allow-x00 = false
        [parameters]
        "path.aggregator_id" = "agg_{world.merchant_id}"
        """
    )
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(config), "run"]
    command += [f"{world.stack.api_url}/openapi/safepay.json", "--url", world.stack.api_url, "--phases", "fuzzing"]
    command += ["--header", f"{KEY}: {world.api_key}", "--checks", checks]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-20_000:]


class BothSides(RuleBasedStateMachine):
    """A merchant that is used natively and as an aggregator, at the same time."""

    stack: Stack

    def __init__(self) -> None:
        super().__init__()
        self.world = World.create(self.stack, opening_balance="50000.00")
        self.safepay, self.made = Safepay(self.world), dict[str, str]()
        self.bodies: dict[str, dict[str, str]] = {}

    made_payouts = Bundle("payouts")

    @rule(target=made_payouts, suffix=_SUFFIXES, rupees=st.integers(1, 999))
    def pay(self, suffix: str, rupees: int) -> str:
        body = payout_body(suffix, str(rupees))
        self.made[body["request_id"]] = self.safepay.post("/payout", body)["token"].removeprefix("pm_")
        self.bodies[body["request_id"]] = body
        return body["request_id"]

    @rule(target=made_payouts, suffix=_SUFFIXES)
    def pay_natively(self, suffix: str) -> str:
        found = self.world.create_payout(suffix)
        self.made[found["merchant_reference"]] = found["id"]
        return str(found["merchant_reference"])

    @rule(target=made_payouts)
    def pay_too_much(self) -> str:
        body = payout_body(amount="999999999999")
        found = self.safepay.post("/payout", body)
        assert found["status"] == "P_FAILED"
        self.made[body["request_id"]] = found["token"].removeprefix("pm_")
        return body["request_id"]

    @rule(name=made_payouts)
    def pay_again(self, name: str) -> None:
        body = self.bodies.get(name)
        if body is not None:
            assert self.safepay.post("/payout", body)["token"] == f"pm_{self.made[name]}"
            for other in ({"amount": "99999"}, {"creditor_iban": IBANS["0013"]}):
                assert self.safepay.call("POST", "/payout", json=body | other).status_code == 409

    @rule(name=made_payouts, action=st.sampled_from(["cancel", "reinitiate"]))
    def act_natively(self, name: str, action: str) -> None:
        assert self.world.post(f"/api/v1/payouts/{self.made[name]}/{action}").status_code in (200, 409, 422)

    @rule(seconds=st.sampled_from([1, 60, 3600]))
    def advance(self, seconds: int) -> None:
        self.world.post("/sandbox/v1/clock/advance", {"seconds": seconds})

    @rule()
    def both_sides_show_each_payout(self) -> None:
        shown = {one["request_id"]: one["token"] for one in self.safepay.get("/payments", limit=100)["payments"]}
        assert {name: shown[name] for name in self.made} == {name: f"pm_{id_}" for name, id_ in self.made.items()}
        listed = self.world.get("/api/v1/payouts", limit=100).json()["data"]
        assert {one["id"] for one in listed} >= set(self.made.values())

    def teardown(self) -> None:
        with self.world as world:
            self.both_sides_show_each_payout()
            world.post("/sandbox/v1/drain")
            until(lambda: world.get("/sandbox/v1/audit").json()["ok"])
            balance = world.get("/api/v1/balance").json()["available_balance"]
            assert self.safepay.get("/ledger/accounts")["balance"] == balance.replace(".", "").lstrip("0")
            for id_ in self.made.values():
                native = world.get(f"/api/v1/payouts/{id_}").json()["status"]
                assert self.safepay.get(f"/payments/pm_{id_}")["status"] == MAPPING.states[native].status


def test_mixed_with_native_calls_both_sides_show_the_same_and_the_audit_is_clean(stack: Stack) -> None:
    machine = type("OnThisStack", (BothSides,), {"stack": stack})
    # A failure is not shrunk: each step waits for a real sandbox.
    found = settings(max_examples=_RUNS, stateful_step_count=12, deadline=None, phases=[Phase.generate])
    run_state_machine_as_test(machine, settings=found)
