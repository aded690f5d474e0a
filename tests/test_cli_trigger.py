"""`psp trigger`: the event comes along the path that leads to it, and the worker does what it does with any payout."""

import json
from typing import Any

import pytest

from sandbox.cli.client import Client
from sandbox.cli.trigger import ROUTES
from sandbox.domain.choices import EventType
from tests.harness.command import invoke, run, run_json
from tests.harness.world import World

PATHS: dict[EventType, list[str]] = {
    "payout.requested": ["REQUESTED"],
    "payout.created": ["PENDING"],
    "payout.processing": ["PENDING", "PROCESSING"],
    "payout.retrying": ["PENDING", "PROCESSING", "RETRY"],
    "payout.on_hold": ["PENDING", "PROCESSING", "ON_HOLD"],
    "payout.in_review": ["PENDING", "PROCESSING", "IN_REVIEW"],
    "payout.succeeded": ["PENDING", "PROCESSING", "SUCCESS"],
    "payout.failed": ["PENDING", "PROCESSING", "FAILED"],
    "payout.cancelled": ["PENDING", "CANCELLED"],
    "payout.rejected": ["REQUESTED", "REJECTED"],
    "payout.returned": ["PENDING", "PROCESSING", "SUCCESS", "RETURNED"],
    "payout.reinitiated": ["PENDING", "PROCESSING", "FAILED", "PENDING"],
}


def trigger(world: World, event: EventType) -> list[dict[str, Any]]:
    """Trigger an event; returns the payout's timeline up to it."""
    found = run_json(world, "trigger", event)
    assert found["type"] == event
    timeline: list[dict[str, Any]] = world.get(f"/api/v1/payouts/{found['payout_id']}/timeline").json()["data"]
    place = next(place for place, entry in enumerate(timeline) if entry["event_id"] == found["id"])
    return timeline[: place + 1]


@pytest.mark.parametrize("event", ROUTES)
def test_each_event_comes_the_real_way(world: World, event: EventType) -> None:
    timeline = trigger(world, event)
    assert [entry["to"] for entry in timeline] == PATHS[event]
    # Only a bank can send money back; everything else the worker or the API does.
    simulated = [entry["to"] for entry in timeline if entry["cause"] == "simulation"]
    assert simulated == (["RETURNED"] if event == "payout.returned" else [])
    world.assert_clean()


def test_in_a_frozen_world_the_calls_themselves_take_the_steps(world: World) -> None:
    run_json(world, "clock", "freeze")
    for event, path in PATHS.items():
        assert [entry["to"] for entry in trigger(world, event)] == path
    world.assert_clean()


def test_a_bulk_credit_is_completed(world: World) -> None:
    found = run_json(world, "trigger", "bulk_credit.completed", "--amount", "12.50")
    assert (found["type"], found["payout_id"], found["data"]["succeeded"]) == ("bulk_credit.completed", None, 1)
    world.assert_clean()


def test_what_is_no_event_is_refused_with_those_that_are(world: World) -> None:
    ran = run(world, "trigger", "payout.exploded")
    assert ran.exit_code == 2
    assert "payout.returned" in ran.output


def test_an_event_that_does_not_come_is_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is bounded: the API holds a response for at most half a minute."""
    waits: list[Any] = []

    def response(_: Client, method: str, path: str, **options: Any) -> Any:
        waits.append(options.get("params", {}).get("timeout"))
        return {"data": []} if path.endswith("/events") else {"id": "payout", "status": "PENDING"}

    monkeypatch.setattr(Client, "request_json", response)
    ran = invoke("trigger", "payout.succeeded", "--json")
    assert (ran.exit_code, ran.stdout) == (4, "")
    assert json.loads(ran.stderr)["code"] == "CONDITION_NOT_MET"
    assert waits == [None, 30, None]
