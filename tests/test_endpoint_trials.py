"""Preview which events an endpoint would have received, and send it a sample."""

from typing import Any, get_args

import msgspec

from sandbox.domain.clock import parse
from sandbox.domain.enumerations import EventType
from sandbox.domain.event_samples import sample
from sandbox.domain.ids import IdSource
from sandbox.domain.payout_states import TRANSITIONS
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_webhooks import deliveries, endpoint


def preview(world: World, endpoint_id: str, **body: Any) -> list[tuple[str, bool, str]]:
    """Return each recent event's type, and whether and why the endpoint would have received it."""
    response = world.post(f"/api/v1/webhook-endpoints/{endpoint_id}/preview", body)
    assert response.status_code == 200, response.text
    return [(event["type"], event["matches"], event["reason"]) for event in response.json()["data"]]


def test_a_preview_shows_which_recent_events_an_endpoint_would_have_received(world: World, receiver: Receiver) -> None:
    world.create_payout("0004", amount="20.00")
    large = world.create_payout("0004", amount="2000.00")
    at_least = {"field": "data.amount", "op": "gte", "value": 1000}
    created = endpoint(world, receiver.url, event_types=["payout.created", "payout.failed"], filters=[at_least])
    assert preview(world, created["id"]) == [
        ("payout.created", True, "the type payout.created is in event_types, and all filters hold"),
        ("payout.created", False, "data.amount 20.00 is not ≥ 1000"),
    ]
    assert preview(world, created["id"], event_types=["payout.failed"], limit=1) == [
        ("payout.created", False, "the type payout.created is not in event_types")
    ]
    assert [matches for _, matches, _ in preview(world, created["id"], filters=[])] == [True, True]
    path = f"/api/v1/webhook-endpoints/{created['id']}/preview"
    empty = world.client.post(path, headers={"X-IDEMPOTENCY-KEY": "empty"})
    (event,) = world.get("/api/v1/events", payout_id=large["id"]).json()["data"]
    assert empty.json()["data"][0]["event_id"] == event["id"]
    assert world.client.post(path).json()["code"] == "MISSING_IDEMPOTENCY_KEY"
    refused = world.post(path, {"event_types": ["payout.created", "x"], "filters": [at_least | {"op": "in"}], "limit": 101})
    assert [error["field"] for error in refused.json()["errors"]] == ["filters[0].value", "limit", "event_types[1]"]
    assert not receiver.received
    assert deliveries(world) == []
    with World.create(world.stack) as other:
        assert other.post(path).status_code == 404


def test_a_sample_takes_the_real_path_to_one_endpoint_and_changes_nothing_else(world: World, receiver: Receiver) -> None:
    with Receiver() as elsewhere:
        endpoint(world, elsewhere.url)
        created = endpoint(world, receiver.url, event_types=["payout.failed"])
        path = f"/api/v1/webhook-endpoints/{created['id']}/test"
        before = world.balance()
        response = world.post(path, {"event_type": "payout.succeeded"}, key="once")
        assert response.status_code == 200, response.text
        (received,) = until(lambda: receiver.received)
        body = received.verify(created["secret"])
        assert (body["type"], body["previous_status"], body["data"]["status"]) == ("payout.succeeded", "PROCESSING", "SUCCESS")
        assert (body["data"]["metadata"], body["livemode"]) == ({"sample": "true"}, False)
        delivery = response.json()
        (logged,) = until(lambda: deliveries(world, status="SUCCEEDED"))
        assert (logged["id"], logged["event_id"], logged["event_type"]) == (delivery["id"], body["id"], "payout.succeeded")
        (attempt,) = world.get(f"/api/v1/webhook-deliveries/{response.json()['id']}").json()["attempts"]
        assert (attempt["manual"], attempt["status"]) == (True, 200)
        assert world.get(f"/api/v1/payouts/{body['data']['id']}").status_code == 404
        event = world.get(f"/api/v1/events/{body['id']}").json()
        assert (event["payout_id"], event["previous_status"], event["data"]) == (None, "PROCESSING", body["data"])
        assert world.balance() == before
        explained = world.get(f"/api/v1/webhook-deliveries/{delivery['id']}/explain").json()
        assert explained["next_attempt"]["reason"] == "SUCCEEDED"
        world.assert_clean()
        assert world.post(path, {"event_type": "payout.succeeded"}, key="once").headers["idempotent-replayed"] == "true"
        assert preview(world, created["id"]) == [
            ("payout.succeeded", False, "it is a sample, which only the endpoint under test receives")
        ]
        assert (len(receiver.received), elsewhere.received) == (1, [])
        refused = world.post(path, {"event_type": "payout.succeded"}).json()["errors"]
        assert [error["field"] for error in refused] == ["event_type"]
        assert "did you mean payout.succeeded?" in refused[0]["message"]
        world.patch(f"/api/v1/webhook-endpoints/{created['id']}", {"status": "DISABLED"})
        assert world.post(path, {"event_type": "payout.failed"}).json()["code"] == "INVALID_STATE"


def test_there_is_a_consistent_sample_of_every_event_type() -> None:
    now = "2031-01-01T00:00:00.000Z"
    assert parse(now)
    for event_type in get_args(EventType):
        previous, data = sample(event_type, IdSource(0, 0, lambda _: 0), now)
        if event_type != "bulk_credit.completed":
            assert TRANSITIONS[previous, msgspec.json.decode(data)["status"]].event == event_type
