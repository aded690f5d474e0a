"""An integration of Safepay Raast runs unchanged: payouts, payments, accounts, keys and errors, as Safepay documents them."""

import base64
import hashlib
import json
import re
import uuid
from typing import Any

import httpx
import pytest

from sandbox.server.dialects.safepay.mapping import MAPPING
from tests.harness.safepay import IBANS, KEY, Safepay, payout_body
from tests.harness.waiting import until
from tests.harness.world import Stack, World

MEMBERS = {
    "id", "token", "aggregator_id", "aggregator_merchant_id", "qr_code_id", "order_id", "type", "amount", "status", "uetr",
    "trace_reference", "msg_id", "instr_id", "end_to_end_id", "pmt_inf_id", "request_id", "msg_created_at", "expires_at",
    "created_at", "updated_at", "txn_logs", "payment_parties", "qr_code", "aggregator_merchant", "refunds", "settlement",
}  # fmt: skip


@pytest.fixture
def safepay(world: World) -> Safepay:
    return Safepay(world)


def test_a_payout_has_the_documented_members_and_hides_its_iban(world: World, safepay: Safepay) -> None:
    body = payout_body("0001", "200") | {"creditor_name": "ignored", "purpose": "ignored"}
    made = safepay.post("/payout", body)
    assert set(made) == MEMBERS
    assert (made["type"], made["amount"], made["status"]) == ("PAYOUT", "200", "P_INITIATED")
    assert (made["request_id"], made["aggregator_id"]) == (body["request_id"], safepay.aggregator_id)
    debitor, creditor = made["payment_parties"]
    assert (creditor["role"], debitor["role"]) == ("ROLE_CREDITOR", "ROLE_DEBITOR")
    account, iban = creditor["bank_account"], IBANS["0001"]
    assert (account["iban"], account["redacted_iban"]) == ("", "PK93HABB************0001")
    assert account["hashed_iban"] == base64.b64encode(hashlib.sha256(iban.encode()).digest()).decode()
    assert account["servicer"] == "HABBPKKARTG"
    assert (len(made["msg_id"]), len(made["instr_id"])) == (35, 32)
    assert made["end_to_end_id"] == made["uetr"].replace("-", "")
    assert uuid.UUID(made["uetr"]).version == 4
    (log,) = made["txn_logs"]
    assert (log["status"], log["payment_id"], log["token"][:7]) == ("P_INITIATED", made["token"], "txnlog_")
    settled = safepay.until(made["token"], "P_SETTLED")
    assert [log["status"] for log in settled["txn_logs"]] == ["P_INITIATED", "P_RECEIVED", "P_SETTLED"]
    assert settled["txn_logs"][0] == log
    assert iban not in json.dumps([made, settled, safepay.get("/payments")])
    # The same payout, natively.
    native = world.get(f"/api/v1/payouts/{made['token'].removeprefix('pm_')}").json()
    assert (native["amount"], native["merchant_reference"]) == ("200.00", body["request_id"])
    assert (native["bank_code"], native["account_number"]) == ("HBL", iban)


@pytest.mark.parametrize(
    ("suffix", "statuses"),
    [("0003", ["P_INITIATED", "P_RECEIVED", "P_FAILED"]), ("0012", ["P_INITIATED", "P_RECEIVED", "P_SETTLED", "P_REVERSED"])],
)
def test_a_payout_fails_or_is_returned_as_its_account_says(
    world: World, safepay: Safepay, suffix: str, statuses: list[str]
) -> None:
    token = safepay.payout(suffix)["token"]
    world.post("/sandbox/v1/clock/advance", {"seconds": 3600})
    ended = safepay.until(token, statuses[-1])
    assert [log["status"] for log in ended["txn_logs"]] == statuses
    assert ended["txn_logs"][-1]["addtl_info"] == {"0003": "BANK_REJECTED", "0012": "RETURNED_BY_BANK"}[suffix]


def test_each_test_account_has_the_statuses_that_the_page_lists(world: World, safepay: Safepay) -> None:
    tokens = {suffix: safepay.payout(suffix)["token"] for suffix in MAPPING.accounts}
    world.post("/sandbox/v1/clock/advance", {"seconds": 24 * 3600})
    for suffix, statuses in MAPPING.accounts.items():
        logs = safepay.until(tokens[suffix], statuses[-1])["txn_logs"]
        assert [log["status"] for log in logs] == statuses, suffix
    holder = {suffix: safepay.get("/title-fetch", iban=IBANS[suffix]) for suffix in IBANS}
    refused = {suffix for suffix, found in holder.items() if found["statusCode"]}
    assert refused == {"0003", "0005", "0006", "0007", "0008"}


@pytest.mark.parametrize("iban", ["PK25ALFH0216001008658216", "PK91ALFH0005001007079203", "PK36SCBL0000001123456702"])
def test_the_accounts_of_safepays_own_examples_are_paid(safepay: Safepay, iban: str) -> None:
    made = safepay.post("/payout", payout_body() | {"creditor_iban": iban})
    assert safepay.until(made["token"], "P_SETTLED")
    found = safepay.get("/payments", request_id=made["request_id"])
    assert (found["count"], found["payments"][0]["token"]) == ("1", made["token"])


def test_an_offset_that_is_too_large_and_a_media_type_that_is_not_json_are_refused(safepay: Safepay) -> None:
    assert safepay.call("GET", "/payments", params={"offset": 10_001}).json()["code"] == "error.bad_request"
    refused = safepay.call("GET", "/payments", headers={"accept": "text/html"})
    assert (refused.status_code, refused.json()["code"]) == (406, "error.request_not_acceptable")


def test_a_slow_payout_stays_received(safepay: Safepay) -> None:
    assert safepay.until(safepay.payout("0005")["token"], "P_RECEIVED")["status"] == "P_RECEIVED"
    assert safepay.payout("0004")["status"] == "P_INITIATED"


def test_the_same_request_id_returns_the_payment_as_it_is_now_also_after_native_keys_expire(
    world: World, safepay: Safepay
) -> None:
    body = payout_body("0001")
    made = safepay.post("/payout", body)
    safepay.until(made["token"], "P_SETTLED")
    world.post("/sandbox/v1/clock/advance", {"seconds": 30 * 24 * 3600})
    again = safepay.post("/payout", body)
    assert (again["token"], again["status"]) == (made["token"], "P_SETTLED")
    for other in (body | {"amount": "201"}, body | {"creditor_iban": IBANS["0003"]}):
        refused = safepay.call("POST", "/payout", json=other)
        assert (refused.status_code, refused.json()["code"]) == (409, "error.conflict")
        assert set(refused.json()) == {"code", "message"}
        assert refused.json()["message"].startswith("idempotency error")
    assert safepay.get("/payments")["count"] == "1"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": 200}, "amount"), ({"amount": "0"}, "amount"), ({"amount": "1.234"}, "amount"), ({"amount": "-1"}, "amount"),
        ({"request_id": "short"}, "request_id"), ({"creditor_iban": "PK62ABPA0010000222380218"}, "creditor_iban"),
        ({"creditor_iban": None}, "creditor_iban"),
    ],
)  # fmt: skip
def test_an_invalid_payout_is_a_flat_400_that_names_the_field(safepay: Safepay, change: dict[str, Any], field: str) -> None:
    refused = safepay.call("POST", "/payout", json=payout_body() | change)
    assert (refused.status_code, refused.json()["code"]) == (400, "error.bad_request")
    assert field in refused.json()["message"]
    assert refused.headers["content-type"] == "application/json"


def test_too_little_money_fails_the_payout_without_moving_any(world: World, safepay: Safepay) -> None:
    before = world.get("/api/v1/balance").json()
    body = payout_body(amount="999999999999")
    made = safepay.post("/payout", body)
    assert (made["status"], made["txn_logs"][0]["addtl_info"]) == ("P_FAILED", "INSUFFICIENT_BALANCE")
    assert safepay.post("/payout", body) == made == safepay.get(f"/payments/{made['token']}")
    payout_id = made["token"].removeprefix("pm_")
    (entry,) = world.get(f"/api/v1/payouts/{payout_id}/timeline").json()["data"]
    assert (entry["from"], entry["to"], entry["ledger_transfer_id"]) == (None, "FAILED", None)
    assert world.get("/api/v1/balance").json() == before
    refused = world.post(f"/api/v1/payouts/{payout_id}/reinitiate")
    assert (refused.status_code, refused.json()["code"]) == (422, "INSUFFICIENT_BALANCE")
    assert world.get("/sandbox/v1/audit").json()["ok"]


def test_wrong_keys_and_other_aggregators_are_refused_as_documented(world: World, stack: Stack) -> None:
    with World.create(stack) as other:
        wrong = Safepay(world, key="sk_live_0123456789").call("GET", "/payments")
        assert (wrong.status_code, wrong.json()["api_version"]) == (401, "v1")
        assert wrong.json()["error"]["code"] == "error.unauthorized_access"
        for native in ({"Authorization": f"Bearer {world.api_key}"}, {"X-API-KEY": world.api_key}):
            assert httpx.get(f"{stack.api_url}{Safepay(world).base}/payments", headers=native).status_code == 401
        foreign = Safepay(world, aggregator_id=f"agg_{other.merchant_id}").call("GET", "/payments")
        unknown = Safepay(world, aggregator_id="agg_unknown").call("GET", "/payments")
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json() == unknown.json() == {"code": "error.not_found", "message": foreign.json()["message"]}
        token = Safepay(other).payout()["token"] if other.post("/sandbox/v1/balance/top-up", {"amount": "500.00"}) else ""
        assert Safepay(world).call("GET", f"/payments/{token}").status_code == 404
        assert Safepay(world).get("/payments", payment_id=token) == {"payments": [], "count": "0"}


@pytest.mark.parametrize("path", ["/payments/pm_x", "/payments/7", "/qr-codes", "/refunds", "/payout/x"])
def test_unknown_paths_and_ids_are_flat_404s(safepay: Safepay, path: str) -> None:
    found = safepay.call("GET", path)
    assert (found.status_code, found.json()["code"]) == (404, "error.not_found")


@pytest.mark.parametrize("path", ["/raastwire", "/raastwire/", "/raastwire/v1"])
def test_the_base_url_itself_is_a_flat_404(stack: Stack, path: str) -> None:
    found = httpx.get(stack.api_url + path)
    assert (found.status_code, found.json()["code"]) == (404, "error.not_found")


@pytest.mark.parametrize(("given", "shown"), [("0200", "200"), ("00.50", "0.50"), ("200.5", "200.50"), ("200.00", "200")])
def test_an_amount_is_read_as_a_number_is(safepay: Safepay, given: str, shown: str) -> None:
    assert safepay.payout("0004", given)["amount"] == shown


def test_25_payments_are_paged_by_offset_newest_first(safepay: Safepay) -> None:
    made = [safepay.payout("0004", str(n))["token"] for n in range(1, 26)]
    pages = [safepay.get("/payments", limit=10, offset=offset) for offset in (0, 10, 20, 30)]
    assert [page["count"] for page in pages] == ["25"] * 4
    assert [payment["token"] for page in pages for payment in page["payments"]] == made[::-1]
    assert len(safepay.get("/payments")["payments"]) == 10
    assert safepay.get("/payments", limit=0) == {"payments": [], "count": "25"}
    assert safepay.call("GET", "/payments", params={"offset": 10_001}).status_code == 400
    assert safepay.call("GET", "/payments", params={"limit": 101}).status_code == 400


def test_payments_are_found_by_each_reference_status_and_time_also_if_made_natively(world: World, safepay: Safepay) -> None:
    native = world.create_payout("0004")["id"]
    for token in (safepay.payout("0004")["token"], f"pm_{native}"):
        wanted = safepay.get(f"/payments/{token}")
        for name in ("request_id", "uetr", "trace_reference", "msg_id", "instr_id", "end_to_end_id"):
            (found,) = safepay.get("/payments", **{name: wanted[name]})["payments"]
            assert found == wanted
            assert safepay.get("/payments", **{name: wanted[name][:-1]})["payments"] == []
        (found,) = safepay.get("/payments", payment_id=token, uetr=wanted["uetr"], status="P_INITIATED")["payments"]
        assert found["token"] == token
        assert safepay.get("/payments", payment_id=token, status="P_SETTLED")["payments"] == []
    assert safepay.get("/payments", status="P_INITIATED", type="PAYOUT")["count"] == "2"
    assert safepay.get("/payments", type="RTP_NOW") == {"payments": [], "count": "0"}
    assert safepay.get("/payments", order_id="x") == {"payments": [], "count": "0"}
    assert safepay.get("/payments", start_date=0, end_date=1)["count"] == "0"
    assert safepay.get("/payments", start_date=1, unknown="ignored")["count"] == "2"
    assert safepay.call("GET", "/payments", params={"status": "P_UNKNOWN"}).status_code == 400


def test_charges_are_nothing(safepay: Safepay) -> None:
    token = safepay.payout(amount="200.50")["token"]
    found = safepay.get(f"/payments/{token}/charges")
    assert found == {
        "payment_id": token, "gross_amount": "20050", "currency": "PKR", "fee_amount": "0", "net_amount": "20050",
        "sales_tax_on_fee_amount": "0", "sales_tax_withholding_amount": "0", "income_tax_withholding_amount": "0",
        "digital_tax_amount": "0",
    }  # fmt: skip


def test_titles_are_found_and_refused(safepay: Safepay) -> None:
    found = safepay.get("/title-fetch", iban=IBANS["0001"])
    assert (found["statusCode"], found["acctype"]) == (0, "Account")
    assert re.fullmatch(r"[A-Z]+ [A-Z]+", found["acctitle"])
    assert safepay.get("/title-fetch", iban=IBANS["0003"]) == {"statusCode": 1, "acctitle": "", "acctype": "Account"}
    assert safepay.call("GET", "/title-fetch", params={"iban": "PK00HABB0000000000000001"}).status_code == 400
    assert safepay.call("GET", "/title-fetch").status_code == 400
    by_number = safepay.get("/title-fetch/v2", account_number="1", bank_name="habib_bank_limited")
    assert (by_number["iban"], by_number["acctitle"]) == (IBANS["0001"], found["acctitle"])
    for number, bank in (
        ("1", "x"),
        ("null", "habib_bank_limited"),
        ("1" * 17, "habib_bank_limited"),
        ("١", "habib_bank_limited"),
    ):
        assert safepay.call("GET", "/title-fetch/v2", params={"account_number": number, "bank_name": bank}).status_code == 400
    info = safepay.get("/account-info", iban=IBANS["0001"], with_title_fetch="true")
    assert (info["servicer_member_id"], info["account_title"]) == ("HABBPKKARTG", found["acctitle"])
    by_body = safepay.call("GET", "/account-info", json={"iban": IBANS["0001"], "with_title_fetch": True})
    assert by_body.json()["data"] == info
    refused = safepay.call("GET", "/account-info")
    assert (refused.status_code, refused.json()["message"]) == (400, "iban or alias_type and alias_value is required")
    alias = safepay.get("/title-fetch/alias", type="TILL_CODE", value="730001")
    assert alias == safepay.get("/account-info", alias_type="TILL_CODE", alias_value="730001")
    assert safepay.call("GET", "/title-fetch/alias", params={"type": "MOBILE", "value": "730003"}).status_code == 404


def test_the_aggregator_and_its_ledger_account(world: World, safepay: Safepay) -> None:
    assert safepay.get("")["is_active"] is True
    before = safepay.get("/ledger/accounts")
    assert before["token"].startswith("acct_")
    safepay.payout("0004", "200.50")
    after = safepay.get("/ledger/accounts")
    assert int(before["balance"]) - int(after["balance"]) == 20050
    assert after["running_balance"] == "-20050"
    available = world.get("/api/v1/balance").json()["available_balance"]
    assert after["balance"] == available.replace(".", "")


def test_keys_are_made_rotated_and_deleted(world: World, safepay: Safepay) -> None:
    made = safepay.post("/keys", {"is_active": True, "name": "second"})
    second = Safepay(world, key=made["secret"])
    assert second.get("")["token"] == safepay.aggregator_id
    listed = safepay.get("/keys")
    assert (listed["count"], [key["secret"] for key in listed["keys"]]) == (2, ["", ""])
    rotated = safepay.put(f"/keys/{made['id']}/rotate")
    until(lambda: second.call("GET", "").status_code == 401)
    assert Safepay(world, key=rotated["secret"]).get("")["token"] == safepay.aggregator_id
    assert safepay.put(f"/keys/{rotated['id']}", {"name": "second"}) == {}
    assert safepay.call("PUT", f"/keys/{rotated['id']}", json={"name": "third"}).status_code == 400
    assert safepay.call("DELETE", f"/keys/{rotated['id']}").json() == {"api_version": "v1", "data": {}}
    until(lambda: Safepay(world, key=rotated["secret"]).call("GET", "").status_code == 401)
    assert safepay.call("POST", "/keys", json={"name": "x"}).status_code == 400
    member = world.post("/sandbox/v1/keys", {"role": "member"}).json()["api_key"]
    assert Safepay(world, key=member).call("GET", "/keys").status_code == 401


def test_no_answer_has_a_header_of_ours_but_the_request_id(world: World, safepay: Safepay) -> None:
    known = {"content-type", "content-length", "x-request-id", "date", "server", "retry-after"}
    answers = [safepay.call("POST", "/payout", json=payout_body()), safepay.call("GET", "/x"), safepay.call("GET", "/payments")]
    world.post("/sandbox/v1/faults", {"target": "api", "kind": "error", "status": 503, "match": {"path": "/raastwire/*"}})
    answers.append(until(lambda: found if (found := safepay.call("GET", "/payments")).status_code == 503 else None))
    assert answers[-1].json()["error"]["code"] == "error.internal_server_error"
    for answer in answers:
        assert set(answer.headers) <= known
        assert "problem" not in answer.headers["content-type"]
        assert "sandbox" not in answer.text.lower()


def test_calls_are_in_the_journal_without_the_key(world: World, safepay: Safepay) -> None:
    safepay.payout()
    (entry,) = until(lambda: [e for e in world.get("/sandbox/v1/requests").json()["data"] if e["path"].endswith("/payout")])
    assert (entry["method"], entry["status"]) == ("POST", 200)
    assert '"creditor_iban"' in entry["request_body"]
    assert '"P_INITIATED"' in entry["response_body"]
    assert world.api_key not in json.dumps(entry)


def test_secrets_are_shown_once_and_never_in_the_journal(world: World, safepay: Safepay) -> None:
    made = safepay.post("/webhooks", {"url": "http://127.0.0.1:9/", "event_types": ["payment.*"]})
    rotated = safepay.put(f"/webhooks/{made['endpoint']['token']}/rotate")
    key = safepay.post("/keys", {"is_active": True, "name": "second"})
    secrets = [made["secret"], rotated["secret"], key["secret"]]
    calls = until(lambda: found if (found := world.get("/sandbox/v1/requests").text).count('"POST"') >= 2 else None)
    shown = calls + json.dumps([safepay.get("/webhooks"), safepay.get("/keys")]) + world.get("/api/v1/webhook-endpoints").text
    assert [secret for secret in secrets if secret in shown] == []


def test_a_rate_limit_of_the_merchant_applies(world: World, safepay: Safepay) -> None:
    world.patch("/sandbox/v1/settings", {"rate_limit": 1})
    refused = until(lambda: found if (found := safepay.call("GET", "/payments")).status_code == 429 else None)
    assert (refused.json()["code"], "retry-after" in refused.headers) == ("error.too_many_requests", True)


def test_the_audit_is_clean_after_calls_of_both_kinds(world: World, safepay: Safepay) -> None:
    token, native = safepay.payout("0003")["token"], world.create_payout("0001")["id"]
    safepay.until(token, "P_FAILED")
    assert safepay.until(f"pm_{native}", "P_SETTLED")["request_id"]
    assert world.get("/sandbox/v1/audit").json()["ok"]
    assert KEY not in world.get("/sandbox/v1/requests").text
