"""Webhook endpoints, signatures, retries on the merchant's clock, the delivery log, and resending."""

import socket
import uuid
from typing import Any

import pytest

from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.http.paging import PageWindow
from sandbox.http.paging import window as window_of
from sandbox.webhooks.deliveries import MAX_READ, deliveries_query, page_of_type
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World


def endpoint(world: World, url: str, **fields: Any) -> dict[str, Any]:
    """Register an endpoint and return it. Check that it is accepted."""
    response = world.post("/api/v1/webhook-endpoints", {"url": url, **fields})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def deliveries(world: World, **filters: str) -> list[dict[str, Any]]:
    """Return the merchant's deliveries, newest first."""
    response = world.get("/api/v1/webhook-deliveries", **filters)
    assert response.status_code == 200, response.text
    page: list[dict[str, Any]] = response.json()["data"]
    return page


def test_an_endpoint_can_be_created_read_changed_and_deleted(world: World, receiver: Receiver) -> None:
    created = endpoint(world, receiver.url, description="mine")
    path = f"/api/v1/webhook-endpoints/{created['id']}"
    assert created["secret"].startswith("whsec_")
    shown = world.get(path).json()
    assert shown == {name: value for name, value in created.items() if name != "secret"}
    assert [item["id"] for item in world.get("/api/v1/webhook-endpoints").json()["data"]] == [created["id"]]
    changed = world.patch(path, {"description": "yours", "retry_profile": "fast"})
    assert (changed.status_code, changed.json()["description"], changed.json()["retry_profile"]) == (200, "yours", "fast")
    with World.create(world.stack) as other:
        assert other.get(path).status_code == other.client.delete(path).status_code == 404
    assert world.client.delete(path).status_code == 204
    assert world.get(path).status_code == 404


def test_an_endpoint_gets_payout_events_by_default(stack: Stack, receiver: Receiver) -> None:
    with World.create(stack, webhook_url=receiver.url) as world:
        endpoint(world, receiver.url)
        found = world.get("/api/v1/webhook-endpoints").json()["data"]
        assert [item["event_types"] for item in found] == [["payout.*"], ["payout.*"]]
        assert [item["signing_time"] for item in found] == ["host", "host"]


def test_an_endpoint_gets_only_the_events_that_it_subscribes_to(world: World, receiver: Receiver) -> None:
    endpoint(world, receiver.url, event_types=["payout.succeeded", "payout.failed"])
    paid, failed = world.create_payout("0001"), world.create_payout("0003")
    receiver.wait_for("payout.succeeded", payout_id=paid["id"])
    receiver.wait_for("payout.failed", payout_id=failed["id"])
    assert sorted(event["type"] for event in receiver.events()) == ["payout.failed", "payout.succeeded"]


def test_an_events_data_is_the_payout_at_that_time(world: World, receiver: Receiver) -> None:
    secret = endpoint(world, receiver.url)["secret"]
    payout = world.create_payout("0001", metadata={"order": "77"})
    receiver.wait_for("payout.created", "payout.processing", "payout.succeeded", payout_id=payout["id"])
    by_type = {received.verify(secret)["type"]: received.event["data"] for received in receiver.received}
    assert by_type["payout.created"] == payout
    assert [by_type[kind]["status"] for kind in sorted(by_type)] == ["PENDING", "PROCESSING", "SUCCESS"]
    assert by_type["payout.succeeded"] == world.payout(payout["id"])
    logged = world.get("/api/v1/events", payout_id=payout["id"]).json()["data"]
    assert [event["type"] for event in logged] == ["payout.succeeded", "payout.processing", "payout.created"]
    assert logged[-1]["data"] == payout


def test_a_payouts_version_grows_with_each_change_and_webhook_bodies_match_the_event_log(
    world: World, receiver: Receiver
) -> None:
    """The version starts at 1. Copies with the same version are equal, including the scenario."""
    secret = endpoint(world, receiver.url)["secret"]
    rule = {"name": "first_try_fails", "match": {"metadata": {"try": "1"}}, "steps": [{"to": "PROCESSING"}, {"to": "FAILED"}]}
    created_rule = world.post("/sandbox/v1/scenarios", rule).json()
    payout = world.create_payout("0004", metadata={"try": "1"})
    assert payout["version"] == 1
    assert world.wait_for(payout["id"], "FAILED")["version"] == 3
    assert world.client.delete(f"/sandbox/v1/scenarios/{created_rule['id']}").status_code == 204
    reinitiated = world.post(f"/api/v1/payouts/{payout['id']}/reinitiate").json()
    assert (reinitiated["version"], reinitiated["scenario"]) == (4, "pending")
    assert world.payout(payout["id"]) == reinitiated
    assert [listed["version"] for listed in world.get("/api/v1/payouts").json()["data"]] == [4]
    receiver.wait_for("payout.reinitiated", "payout.failed", payout_id=payout["id"])
    until(lambda: len(receiver.events()) == 4)
    bodies = sorted((received.verify(secret) for received in receiver.received), key=lambda body: body["data"]["version"])
    assert [
        (body["type"], body["previous_status"], body["data"]["status"], body["data"]["version"], body["livemode"])
        for body in bodies
    ] == [
        ("payout.created", None, "PENDING", 1, False),
        ("payout.processing", "PENDING", "PROCESSING", 2, False),
        ("payout.failed", "PROCESSING", "FAILED", 3, False),
        ("payout.reinitiated", "FAILED", "PENDING", 4, False),
    ]
    assert bodies[3]["data"] == reinitiated
    by_id = {received.headers["webhook-id"]: received.event for received in receiver.received}
    assert by_id.keys() == {body["id"] for body in bodies}
    for event in world.get("/api/v1/events", payout_id=payout["id"]).json()["data"]:
        assert {name: event[name] for name in by_id[event["id"]]} == by_id[event["id"]]


def test_the_deliveries_of_a_deleted_endpoint_stay_in_the_log(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (500, {}, b"not now")
    deleted, remaining = (endpoint(world, receiver.url, event_types=["payout.created"]) for _ in range(2))
    world.create_payout("0004")
    until(lambda: all(delivery["attempt_count"] for delivery in deliveries(world)))
    assert world.client.delete(f"/api/v1/webhook-endpoints/{deleted['id']}").status_code == 204
    (failed,) = deliveries(world, endpoint_id=deleted["id"])
    assert (failed["status"], failed["next_attempt_at"], failed["attempt_count"]) == (
        "FAILED",
        None,
        1,
    )
    assert failed in deliveries(world)
    assert deliveries(world, status="FAILED") == [failed]
    assert [delivery["endpoint_id"] for delivery in deliveries(world, status="PENDING")] == [remaining["id"]]
    detail = world.get(f"/api/v1/webhook-deliveries/{failed['id']}").json()
    assert [entry["response"]["body"] for entry in detail["attempts"]] == ["not now"]
    assert failed in world.get(f"/api/v1/events/{failed['event_id']}").json()["deliveries"]
    refused = world.post(f"/api/v1/webhook-deliveries/{failed['id']}/resend")
    assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
    assert "was deleted" in refused.json()["detail"]


def test_only_the_detail_of_a_delivery_lists_its_attempts(world: World, receiver: Receiver) -> None:
    endpoint(world, receiver.url, event_types=["payout.created"])
    payout = world.create_payout("0004")
    (listed,) = until(lambda: deliveries(world, status="SUCCEEDED"))
    assert listed["attempt_count"] == 1
    assert "attempts" not in listed
    (event,) = world.get("/api/v1/events", payout_id=payout["id"]).json()["data"]
    assert world.get(f"/api/v1/events/{event['id']}").json()["deliveries"] == [listed]
    resent = world.post(f"/api/v1/webhook-deliveries/{listed['id']}/resend").json()
    assert resent.keys() == listed.keys()
    detail = world.get(f"/api/v1/webhook-deliveries/{listed['id']}").json()
    assert isinstance(detail["attempts"], list)
    assert detail.keys() - listed.keys() == {"attempts"}


def test_all_attempts_of_a_payout_are_read_in_one_list(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (503, {}, b"down")
    world.post("/sandbox/v1/clock/freeze")
    first, second = [endpoint(world, receiver.url, retry_profile="fast")["id"] for _ in range(2)]
    payout, other = world.create_payout("0001"), world.create_payout("0001")
    world.post("/sandbox/v1/clock/advance", {"seconds": 60})
    path = "/api/v1/webhook-deliveries/attempts"
    listed = world.get(path, payout_id=payout["id"], limit=100).json()["data"]
    assert len(listed) == 3 * 2
    for row in listed:
        whole = world.get(f"/api/v1/webhook-deliveries/{row['id']}").json()
        names = row["attempts"][0].keys()
        assert row == {**whole, "attempts": [{name: one[name] for name in names} for one in whole["attempts"]]}
        assert [(one["attempt"], one["status"]) for one in row["attempts"]] == [(n, 503) for n in range(1, 7)]
    assert deliveries(world, payout_id=payout["id"]) == [
        {name: value for name, value in row.items() if name != "attempts"} for row in listed
    ]
    to_first = world.get(path, payout_id=payout["id"], endpoint_id=first).json()["data"]
    assert to_first == [row for row in listed if row["endpoint_id"] != second]
    assert world.get(path, endpoint_id=second, limit=100).json()["data"][3:] == [
        r for r in listed if r["endpoint_id"] == second
    ]
    of_other = deliveries(world, payout_id=other["id"], event_id=listed[0]["event_id"])
    assert (of_other, len(deliveries(world, payout_id=payout["id"], event_id=listed[0]["event_id"]))) == ([], 2)
    for _ in range(16):
        world.post(f"/api/v1/webhook-deliveries/{listed[0]['id']}/resend")
        world.post("/sandbox/v1/drain")
    newest = world.get(path, payout_id=payout["id"], limit=1).json()["data"][0]
    assert [one["attempt"] for one in newest["attempts"]] == list(range(3, 23))
    assert [one["manual"] for one in newest["attempts"]] == [False] * 4 + [True] * 16


def test_the_log_shows_the_request_that_was_sent(world: World, receiver: Receiver) -> None:
    secret = endpoint(world, receiver.url, event_types=["payout.created"])["secret"]
    world.client.post("/sandbox/v1/clock/freeze", json={"at": "2036-05-04T03:02:01.500Z"})
    world.create_payout("0004")
    (delivery,) = until(lambda: deliveries(world, status="SUCCEEDED"))
    (attempt,) = world.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"]
    (received,) = receiver.received
    assert attempt["request"]["headers"] == received.headers
    assert attempt["request"]["body"].encode() == received.body
    received.verify(secret)  # by default, the signature has the host's time
    assert received.headers["x-sandbox-now"] == attempt["at"] == "2036-05-04T03:02:01.500Z"
    assert (attempt["fault_id"], attempt["fault_kind"]) == (None, None)


def test_a_failed_delivery_is_retried_on_the_merchants_clock_until_it_succeeds(world: World, receiver: Receiver) -> None:
    """In the standard profile the waits are 0 s, 5 s and 5 min. Each attempt has the same webhook-id and its own time."""
    refusals = [503, 500]

    def respond(_: Received) -> tuple[int, dict[str, str], bytes]:
        return (refusals.pop(0), {}, b"no") if refusals else (200, {}, b"yes")

    receiver.respond = respond
    secret = endpoint(world, receiver.url, event_types=["payout.created"])["secret"]
    world.create_payout("0004")
    for attempt, seconds in ((1, 5), (2, 300)):
        until(lambda attempt=attempt: deliveries(world)[0]["attempt_count"] >= attempt)
        world.shift_clock(seconds)
    until(lambda: deliveries(world)[0]["status"] == "SUCCEEDED")
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert len({received.headers["x-sandbox-now"] for received in receiver.received}) == 3
    detail = world.get(f"/api/v1/webhook-deliveries/{deliveries(world)[0]['id']}").json()
    assert sorted((entry["attempt"], entry["status"]) for entry in detail["attempts"]) == [(1, 503), (2, 500), (3, 200)]
    assert secret not in str(detail)


def test_a_delivery_fails_after_its_last_attempt_and_can_be_resent(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (500, {}, b"no")
    endpoint(world, receiver.url, event_types=["payout.created"], retry_profile="fast")
    world.create_payout("0004")
    for attempt in range(1, 6):
        until(lambda attempt=attempt: deliveries(world)[0]["attempt_count"] >= attempt)
        world.shift_clock(16)
    (failed,) = until(lambda: deliveries(world, status="FAILED"))
    assert (failed["attempt_count"], failed["next_attempt_at"]) == (6, None)
    receiver.respond = lambda _: (200, {}, b"")
    assert world.post(f"/api/v1/webhook-deliveries/{failed['id']}/resend").status_code == 200
    (resent,) = until(lambda: deliveries(world, status="SUCCEEDED"))
    assert (resent["id"], resent["attempt_count"]) == (failed["id"], 7)


@pytest.mark.parametrize("status", [302, 410, 429])
def test_the_server_errors_profile_treats_3xx_and_4xx_as_final_and_keeps_the_endpoint_enabled(
    world: World, receiver: Receiver, status: int
) -> None:
    receiver.respond = lambda _: (status, {}, b"")
    created = endpoint(world, receiver.url, event_types=["payout.created"], retry_profile="server_errors")
    world.create_payout("0004")
    (failed,) = until(lambda: deliveries(world, status="FAILED"))
    assert (failed["attempt_count"], failed["next_attempt_at"]) == (1, None)
    assert world.get(f"/api/v1/webhook-endpoints/{created['id']}").json()["status"] == "ENABLED"
    explained = world.get(f"/api/v1/webhook-deliveries/{failed['id']}/explain").json()
    assert explained["next_attempt"]["reason"] == "FINAL_RESPONSE"


def test_a_410_disables_the_endpoint_and_later_deliveries_are_paused(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (410, {}, b"")
    created = endpoint(world, receiver.url, event_types=["payout.created"])
    world.create_payout("0004")
    path = f"/api/v1/webhook-endpoints/{created['id']}"
    until(lambda: world.get(path).json()["status"] == "DISABLED")
    before = len(receiver.received)
    world.create_payout("0004")
    (paused,) = deliveries(world, status="PAUSED")
    assert world.post(f"/api/v1/webhook-deliveries/{paused['id']}/resend").json()["code"] == "INVALID_STATE"
    receiver.respond = lambda _: (200, {}, b"")
    assert world.patch(path, {"status": "ENABLED"}).status_code == 200
    assert world.post(f"/api/v1/webhook-deliveries/{paused['id']}/resend").status_code == 200
    until(lambda: deliveries(world, status="SUCCEEDED"))
    assert len(receiver.received) > before


def test_each_attempt_shows_its_timings_and_the_class_of_its_error(world: World, receiver: Receiver) -> None:
    statuses = iter([503, 200])
    receiver.respond = lambda _: (next(statuses), {}, b"")
    endpoint(world, receiver.url, event_types=["payout.created"], retry_profile="fast")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refusing = endpoint(world, f"http://127.0.0.1:{unused.getsockname()[1]}/", event_types=["payout.created"])
        world.create_payout("0004")
        (delivery,) = until(lambda: deliveries(world, status="SUCCEEDED"))
        (refused,) = until(lambda: [item for item in deliveries(world, endpoint_id=refusing["id"]) if item["attempt_count"]])
    failed, succeeded = world.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"]
    assert (failed["error_class"], failed["error"], succeeded["error_class"]) == ("HTTP_STATUS", None, None)
    for attempt in (failed, succeeded):
        timings = attempt["timings"]
        assert list(timings) == ["dns_ms", "connect_ms", "tls_ms", "first_byte_ms", "total_ms"]
        assert (timings["dns_ms"], timings["tls_ms"], timings["total_ms"]) == (None, None, attempt["duration_ms"])
        assert 0 < timings["first_byte_ms"] <= timings["total_ms"]
    assert failed["timings"]["connect_ms"] is not None
    (attempt,) = world.get(f"/api/v1/webhook-deliveries/{refused['id']}").json()["attempts"]
    assert (attempt["error_class"], attempt["error"]) == ("CONNECTION_REFUSED", "connection refused")
    assert attempt["timings"]["first_byte_ms"] is None


def test_events_and_deliveries_are_listed_by_type(world: World, receiver: Receiver) -> None:
    endpoint(world, receiver.url)
    created = [world.create_payout("0001")["id"] for _ in range(3)]
    for payout_id in created:
        world.wait_for(payout_id, "SUCCESS")
    events = world.get("/api/v1/events", type="payout.created", limit="2").json()
    assert {event["type"] for event in events["data"]} == {"payout.created"}
    rest = world.get("/api/v1/events", type="payout.created", cursor=events["next_cursor"]).json()
    assert [event["payout_id"] for event in events["data"] + rest["data"]] == created[::-1]
    sent = world.get("/api/v1/webhook-deliveries", event_type="payout.succeeded").json()["data"]
    assert [delivery["event_type"] for delivery in sent] == ["payout.succeeded"] * 3
    assert world.get("/api/v1/events", type="payout.nothing").status_code == 400
    both = {"event_type": "payout.succeeded", "status": "SUCCEEDED"}
    assert until(lambda: len(deliveries(world, **both)) == 3)
    assert deliveries(world, **both | {"status": "FAILED"}) == []


def test_deliveries_by_type_and_status_read_one_list() -> None:
    """One that reads the limit of each endpoint and status could read 46 times as many rows."""
    window = PageWindow(20, MAX_ID, MIN_ID)
    both = {"event_type": "payout.failed", "status": "FAILED"}
    assert deliveries_query("m", window, both) == deliveries_query("m", window, {})


def test_a_page_of_one_type_stops_at_the_read_limit_and_the_next_page_continues() -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(MAX_READ, 0, -1)]
    records = [{"id": id_, "type": "other"} for id_ in ids]
    window = PageWindow(20, MAX_ID, MIN_ID)
    whole = page_of_type(records, window, {"type": ["wanted"]}, lambda record: record)
    assert (whole.data, whole.has_more) == ([], True)
    following = window_of({"cursor": whole.next_cursor or ""})
    assert following.before == ids[-1], "nothing is left out, and nothing is read twice"
    assert not page_of_type(records[1:], window, {"type": ["wanted"]}, lambda record: record).has_more
