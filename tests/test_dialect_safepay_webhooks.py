"""Webhooks of the Safepay dialect: written, signed and retried as Safepay documents it, and never with anything of ours."""

import base64
import hashlib
import hmac
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from sandbox.domain.enumerations import EVENT_TYPES
from sandbox.domain.errors import CODES
from sandbox.domain.event_samples import sample
from sandbox.domain.ids import IdSource
from sandbox.domain.payout import Payout
from sandbox.domain.payout_states import EVENT_OF, STATUSES, TRANSITIONS
from sandbox.payouts.history import HistoryEntry
from sandbox.server.dialects.dialect import PayoutEvent, Refusal
from sandbox.server.dialects.safepay.errors import refuse
from sandbox.server.dialects.safepay.events import encode_event
from sandbox.server.dialects.safepay.ids import from_msg_id, payout_of, reference, to_msg_id
from sandbox.server.dialects.safepay.mapping import MAPPING
from sandbox.server.dialects.safepay.webhooks import WIRE_TYPES
from sandbox.webhooks.signing.dialects import signature_headers
from tests.harness.listener import listening
from tests.harness.receiver import Received, Receiver
from tests.harness.safepay import IBANS, Safepay
from tests.harness.waiting import until
from tests.harness.world import World


def verify(secret: str, received: Received) -> dict[str, Any]:
    """Verify a webhook as Safepay's page says, and return its event. Raises ValueError."""
    stamp, given = received.headers["x-sfpy-timestamp"], received.headers["x-sfpy-signature"]
    if abs((datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()) > 300:
        raise ValueError("the timestamp drifted")
    digest = hmac.new(base64.b64decode(secret), stamp.encode() + b"." + received.body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(f"sha256={digest}", given):
        raise ValueError("the signature does not match")
    return received.event


def subscribe(world: World, receiver: Receiver, *types: str, **fields: Any) -> tuple[Safepay, str, str]:
    """Return a client, the endpoint's token and its secret."""
    safepay = Safepay(world)
    made = safepay.post("/webhooks", {"url": receiver.url, "event_types": types or ["payment.*"], "description": "d", **fields})
    return safepay, made["endpoint"]["token"], made["secret"]


def types_of(receiver: Receiver) -> list[str]:
    return [received.event["webhook_event_type"] for received in receiver.received]


def test_events_are_signed_and_written_as_documented(world: World, receiver: Receiver) -> None:
    safepay, _, secret = subscribe(world, receiver)
    assert len(base64.b64decode(secret)) == 32
    made = safepay.payout("0001", "5000")
    expected = ["payment.created", "payment.pending_authorization", "payment.settled"]
    until(lambda: sorted(types_of(receiver)) == expected)
    by_type = {received.event["webhook_event_type"]: received for received in receiver.received}
    for received in by_type.values():
        event, headers = verify(secret, received), received.headers
        assert headers["x-sfpy-event-id"] == event["identifier"] == event["subject"]["payment"]["txn_logs"][-1]["token"]
        assert headers["x-sfpy-event-type"] == event["webhook_event_type"]
        assert headers["x-sfpy-aggregator-id"] == event["aggregator_id"] == safepay.aggregator_id
        assert not {"webhook-id", "webhook-signature", "webhook-timestamp", "traceparent", "x-sandbox-now"} & set(headers)
        assert IBANS["0001"].encode() not in received.body
    event = by_type["payment.settled"].event
    assert (event["source"], event["kind"], event["code"]) == ("SAFEPAY_RAAST", "PAYMENT_EVENT", "PAYMENT_SETTLED")
    payment = event["subject"]["payment"]
    # The API says rupees, and events say paisa.
    assert (made["amount"], payment["amount"]) == ("5000", "500000")
    assert (payment["token"], payment["type"], payment["status"]) == (made["token"], "PAYOUT", "P_SETTLED")
    assert [log["status"] for log in payment["txn_logs"]] == ["P_INITIATED", "P_RECEIVED", "P_SETTLED"]
    assert (payment["expires_at"], payment["payment_authorization"], payment["iso_order_reference"]) == (None, None, "")
    found = safepay.get(f"/payments/{made['token']}")
    assert found["txn_logs"] == payment["txn_logs"]


def test_an_endpoint_can_have_amounts_in_rupees(world: World, receiver: Receiver) -> None:
    safepay, token, _ = subscribe(world, receiver, "payment.created", sandbox_event_amount="rupees")
    safepay.payout("0004", "5000.50")
    until(lambda: receiver.received)
    assert receiver.received[0].event["subject"]["payment"]["amount"] == "5000.50"
    safepay.put(f"/webhooks/{token}", {"sandbox_event_amount": "paisa"})
    safepay.payout("0004", "5000.50")
    until(lambda: len(receiver.received) == 2)
    assert receiver.received[1].event["subject"]["payment"]["amount"] == "500050"


def test_an_endpoint_can_do_without_the_event_that_is_not_documented(world: World, receiver: Receiver) -> None:
    safepay, token, _ = subscribe(world, receiver, "payment.*", sandbox_received_event=False)
    safepay.until(safepay.payout("0001")["token"], "P_SETTLED")
    until(lambda: len(receiver.received) == 2)
    assert sorted(types_of(receiver)) == ["payment.created", "payment.settled"]
    safepay.put(f"/webhooks/{token}", {"sandbox_received_event": True})
    safepay.payout("0005")
    until(lambda: "payment.pending_authorization" in types_of(receiver))


def test_a_payout_that_the_bank_tries_again_is_received_once(world: World, receiver: Receiver) -> None:
    safepay, _, _ = subscribe(world, receiver)
    token = safepay.payout("0002")["token"]
    world.post("/sandbox/v1/clock/advance", {"seconds": 60})
    settled = safepay.until(token, "P_SETTLED")
    until(lambda: len(receiver.received) == 3)
    world.post("/sandbox/v1/drain")
    assert sorted(types_of(receiver)) == ["payment.created", "payment.pending_authorization", "payment.settled"]
    logs = [log["token"] for log in settled["txn_logs"]]
    assert sorted(one.event["identifier"] for one in receiver.received) == sorted(logs)
    timeline = world.get(f"/api/v1/payouts/{token.removeprefix('pm_')}/timeline").json()["data"]
    assert [entry["to"] for entry in timeline].count("PROCESSING") == 2


def test_a_native_endpoint_of_the_same_merchant_gets_native_events(world: World, receiver: Receiver) -> None:
    with Receiver() as other:
        subscribe(world, receiver)
        native = world.post("/api/v1/webhook-endpoints", {"url": other.url}).json()
        payout = world.create_payout("0003")
        until(lambda: "payment.failed" in types_of(receiver) and "payout.failed" in [e["type"] for e in other.events()])
        assert all(one.verify(native["secret"])["data"]["id"] == payout["id"] for one in list(other.received))
        assert {e["subject"]["payment"]["token"] for e in (r.event for r in receiver.received)} == {f"pm_{payout['id']}"}
        assert world.get("/sandbox/v1/audit").json()["ok"]


def test_after_a_rotation_only_the_new_secret_signs(world: World, receiver: Receiver) -> None:
    safepay, token, secret = subscribe(world, receiver, "payment.created")
    rotated = safepay.put(f"/webhooks/{token}/rotate")
    assert (rotated["endpoint"]["secret_version"], rotated["endpoint"]["token"]) == (2, token)
    safepay.payout("0004")
    (received,) = until(lambda: receiver.received)
    assert verify(rotated["secret"], received)
    with pytest.raises(ValueError, match="signature"):
        verify(secret, received)


def test_a_500_is_retried_five_times_and_is_then_dead(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (500, {}, b"")
    world.post("/sandbox/v1/clock/freeze", {})
    safepay, token, _ = subscribe(world, receiver, "payment.created")
    safepay.payout("0004")
    world.post("/sandbox/v1/clock/advance", {"seconds": 60})
    (delivery,) = until(lambda: safepay.get(f"/webhooks/{token}/deliveries", status="WD_DEAD")["deliveries"])
    assert (delivery["attempts"], delivery["last_error"], delivery["next_attempt_at"]) == (6, "status 500", None)
    assert len({received.body for received in receiver.received}) == 1
    assert len({received.headers["x-sfpy-event-id"] for received in receiver.received}) == 1


@pytest.mark.parametrize("status", [302, 410, 422, 429])
def test_a_3xx_or_4xx_is_dead_at_once_and_the_endpoint_stays_enabled(world: World, receiver: Receiver, status: int) -> None:
    receiver.respond = lambda _: (status, {}, b"")
    safepay, token, _ = subscribe(world, receiver, "payment.created")
    safepay.payout("0004")
    (delivery,) = until(lambda: safepay.get(f"/webhooks/{token}/deliveries", status="WD_DEAD")["deliveries"])
    assert (delivery["attempts"], delivery["last_error"]) == (1, f"status {status}")
    assert safepay.get(f"/webhooks/{token}")["endpoint"]["enabled"] is True


def test_disabling_an_endpoint_makes_its_pending_deliveries_dead_for_good(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (500, {}, b"")
    world.post("/sandbox/v1/clock/freeze", {})
    safepay, token, _ = subscribe(world, receiver, "payment.created")
    safepay.payout("0004")
    world.post("/sandbox/v1/clock/advance", {"seconds": 0})
    until(lambda: safepay.get(f"/webhooks/{token}/deliveries", status="WD_PENDING")["deliveries"][0]["attempts"])
    for is_enabled in (False, True):
        safepay.put(f"/webhooks/{token}", {"enabled": is_enabled})
        (delivery,) = safepay.get(f"/webhooks/{token}/deliveries")["deliveries"]
        assert (delivery["status"], delivery["next_attempt_at"]) == ("WD_DEAD", None)
    world.post("/sandbox/v1/clock/advance", {"seconds": 60})
    assert safepay.get(f"/webhooks/{token}/deliveries")["deliveries"] == [delivery]


def test_endpoints_and_deliveries_are_listed_changed_and_deleted(world: World, receiver: Receiver) -> None:
    safepay, token, _ = subscribe(world, receiver, "payment.created", "refund.*")
    endpoint = safepay.get(f"/webhooks/{token}")["endpoint"]
    assert json.loads(endpoint["event_filter_json"]) == ["payment.created", "refund.*"]
    native = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()["id"]
    assert safepay.get("/webhooks") == {"endpoints": [endpoint], "count": "1"}
    unknown = ["/webhooks/wh_x", f"/webhooks/wh_{native}", f"/webhooks/{token}/deliveries/whd_{native}"]
    assert {safepay.call("GET", path).status_code for path in unknown} == {400}
    made = safepay.payout("0004")
    listed = until(lambda: safepay.get(f"/webhooks/{token}/deliveries", status="WD_DELIVERED")["deliveries"])
    assert (listed[0]["type"], listed[0]["payload_json"]) == ("payment.created", "")
    one = safepay.get(f"/webhooks/{token}/deliveries/{listed[0]['token']}")
    received = next(r for r in receiver.received if "x-sfpy-event-id" in r.headers)
    assert one["payload_json"].encode() == received.body
    (attempt,) = world.get(f"/api/v1/webhook-deliveries/{one['token'].removeprefix('whd_')}").json()["attempts"]
    assert attempt["request"]["body"].encode() == received.body
    assert {name.lower(): value for name, value in attempt["request"]["headers"].items()}.items() <= received.headers.items()
    assert one["event_id"] == made["txn_logs"][0]["token"]
    for filters in ({"event_id": [one["event_id"], "txnlog_x"]}, {"delivery_id": ["whd_x", one["token"]]}):
        assert safepay.get(f"/webhooks/{token}/deliveries", **filters)["count"] == "1"
    assert safepay.get(f"/webhooks/{token}/deliveries", event_id="txnlog_x")["count"] == "0"
    assert safepay.get(f"/webhooks/{token}/deliveries", status="WD_FAILED") == {"deliveries": [], "count": "0"}
    assert safepay.get(f"/webhooks/{token}/deliveries", type="payment.settled")["count"] == "0"
    changed = safepay.put(f"/webhooks/{token}", {"enabled": False, "event_types": ["payment.settled"]})["endpoint"]
    assert (changed["enabled"], json.loads(changed["event_filter_json"])) == (False, ["payment.settled"])
    assert safepay.call("DELETE", f"/webhooks/{token}").json() == {"api_version": "v1", "data": {}}
    assert safepay.call("GET", f"/webhooks/{token}/deliveries").status_code == 400
    assert safepay.call("POST", "/webhooks", json={"url": receiver.url, "event_types": ["payout.x"]}).status_code == 400
    assert safepay.call("POST", "/webhooks", json={"url": receiver.url}).status_code == 400


def test_the_signature_is_that_of_the_vector() -> None:
    secret = "whsec_9sU3KVM5iQYZsxt40st1nkJsvbyuLnquB3Re1Q7k08w="
    stamp = int(datetime(2026, 9, 14, 10, 15, 31, tzinfo=UTC).timestamp())
    found = signature_headers("safepay", [secret], "id", stamp, b'{"identifier":"txnlog_0"}')
    content = b'2026-09-14T10:15:31Z.{"identifier":"txnlog_0"}'
    expected = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), content, hashlib.sha256).hexdigest()
    assert found == {"X-SFPY-TIMESTAMP": "2026-09-14T10:15:31Z", "X-SFPY-SIGNATURE": f"sha256={expected}"}


ERRORS = {
    (400, "error.bad_request"), (401, "error.unauthorized_access"), (404, "error.not_found"),
    (406, "error.request_not_acceptable"), (409, "error.conflict"), (500, "error.internal_server_error"),
    # Not documented: the proposals for a rate limit, and for an outage.
    (429, "error.too_many_requests"), (503, "error.internal_server_error"),
}  # fmt: skip


def paths() -> dict[str, list[str]]:
    """Return a shortest way to each state."""
    found: dict[str, list[str]] = {}
    left: list[list[str]] = [[]]
    for path in left:
        for previous, status in TRANSITIONS:
            if previous == (path[-1] if path else None) and status not in found:
                found[status] = [*path, status]
                left.append(found[status])
    return found


@pytest.mark.parametrize(("status", "path"), paths().items())
def test_each_value_in_the_event_of_each_state_is_a_documented_one(status: str, path: list[str]) -> None:
    assert set(paths()) == set(STATUSES)
    assert set(EVENT_TYPES) - set(WIRE_TYPES) == {"bulk_credit.completed"}
    documented, at = MAPPING.documented, "2026-01-31T12:00:00.000Z"
    ids = [str(uuid.UUID(int=number)) for number in range(len(path))]
    ids_of_sample = IdSource(0, 0, lambda bits: 1)
    payout = msgspec.json.decode(sample(EVENT_OF[status], ids_of_sample, at)[1], type=Payout)
    history = [HistoryEntry(id_, one, at) for id_, one in zip(ids, path, strict=True)]
    event = json.loads(encode_event(PayoutEvent("m", ids[-1], EVENT_OF[status], at, payout, history, {})))
    shown = event["subject"]["payment"]
    assert event["webhook_event_type"] in documented["events"]
    assert event["code"] == f"PAYMENT_{event['webhook_event_type'].partition('.')[2].upper()}"
    assert {shown["status"], *(log["status"] for log in shown["txn_logs"])} <= set(documented["statuses"])
    assert (shown["status"], shown["type"], payout.status) == (MAPPING.states[status].status, "PAYOUT", status)
    assert [party["role"] for party in shown["payment_parties"]] == ["ROLE_DEBITOR", "ROLE_CREDITOR"]
    assert {(log["type"], log["iso_msg_type"]) for log in shown["txn_logs"]} == {("TLT_PAYMENT", "pain.013.001.09")}
    assert (event["source"], event["kind"], event["version"]) == ("SAFEPAY_RAAST", "PAYMENT_EVENT", "V1_0_0")
    assert len({log["status"] for log in shown["txn_logs"]}) == len(shown["txn_logs"])
    if MAPPING.states[status].event:
        assert event["identifier"] == shown["txn_logs"][-1]["token"]


def test_each_state_event_and_problem_is_mapped_to_a_documented_value() -> None:
    documented = MAPPING.documented
    assert set(MAPPING.states) == set(STATUSES) == set(EVENT_OF)
    for state in MAPPING.states.values():
        assert state.status in documented["statuses"]
        assert state.event in (*documented["events"], "")
        assert state.logged or not state.event
    assert set(MAPPING.problems) == set(CODES)
    for code, kind in CODES.items():
        status, body = refuse(Refusal(kind.status, code, "native text"))
        found = json.loads(body)
        error = found["error"] if status in (401, 500, 503) else found
        assert set(found) == ({"api_version", "error"} if error is not found else {"code", "message"})
        assert (status, error["code"]) in ERRORS
        assert "native" not in error["message"]
    assert set(MAPPING.deliveries.values()) <= set(documented["deliveries"])
    assert {status for statuses in MAPPING.accounts.values() for status in statuses} <= set(documented["statuses"])


@pytest.mark.parametrize("kind", ["uetr", "trace_reference", "msg_id", "instr_id"])
def test_references_lead_back_to_their_payout_for_ever(kind: str) -> None:
    id_ = "019a5c3e-7b10-7a42-8000-2a0000000001"
    found = reference("m", kind, id_)
    assert (found.version, payout_of("m", kind, found)) == (4, id_)
    assert payout_of("other", kind, found) != id_
    assert from_msg_id(to_msg_id(found)) == found
    # Part of the contract: this value must never change.
    assert kind != "uetr" or str(found) == "28be3ec5-06f1-4b74-9291-2e0fe32ac414"


def test_a_listener_that_signs_as_safepay_gets_safepays_events(world: World, receiver: Receiver) -> None:
    with listening(world.stack.api_url, world.api_key, receiver.url, "--signing", "safepay") as listener:
        payout = world.create_payout("0004", amount="12.50")
        shown = listener.next()
        assert (shown["status"], shown["delivery_status"]) == (200, "SUCCEEDED")
        event = verify(listener.endpoint["secret"].removeprefix("whsec_"), receiver.received[0])
        assert event["subject"]["payment"]["token"] == f"pm_{payout['id']}"
        assert not {"webhook-id", "traceparent", "x-sandbox-now"} & set(receiver.received[0].headers)
