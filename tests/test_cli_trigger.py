"""`psp trigger` produces each event by a real payout or bulk credit that goes through all the usual steps."""

import json
from typing import Any

import pytest

from sandbox.cli.client import Client
from sandbox.cli.trigger import ROUTES
from sandbox.domain.enumerations import EventType
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
    """Trigger an event and return the payout's timeline up to it."""
    found = run_json(world, "trigger", event)
    assert found["type"] == event
    timeline: list[dict[str, Any]] = world.get(f"/api/v1/payouts/{found['payout_id']}/timeline").json()["data"]
    index = next(index for index, entry in enumerate(timeline) if entry["event_id"] == found["id"])
    return timeline[: index + 1]


@pytest.mark.parametrize("event", ROUTES)
def test_each_event_results_from_the_usual_steps(world: World, event: EventType) -> None:
    timeline = trigger(world, event)
    assert [entry["to"] for entry in timeline] == PATHS[event]
    # Only the return is simulated, because it comes from the bank. Workers and the API do the rest.
    simulated = [entry["to"] for entry in timeline if entry["cause"] == "simulation"]
    assert simulated == (["RETURNED"] if event == "payout.returned" else [])
    world.assert_clean()


def test_events_can_be_triggered_in_a_frozen_world(world: World) -> None:
    run_json(world, "clock", "freeze")
    for event, path in PATHS.items():
        assert [entry["to"] for entry in trigger(world, event)] == path
    world.assert_clean()


@pytest.mark.parametrize(
    ("event", "account", "scenario", "failure_code"),
    [
        ("payout.failed", "12345678900007", "account_closed", "ACCOUNT_CLOSED"),
        ("payout.reinitiated", "12345678900006", "account_not_found", None),
        ("payout.failed", "12345678900001", "failed", "BANK_REJECTED"),
        ("payout.cancelled", "12345678900007", "pending", None),
    ],
)
def test_an_account_number_keeps_its_meaning_if_it_leads_to_the_event(
    world: World, event: str, account: str, scenario: str, failure_code: str | None
) -> None:
    found = run_json(world, "trigger", event, "--set", f"account_number={account}")
    assert (found["type"], found["data"]["scenario"], found["data"]["failure_code"]) == (event, scenario, failure_code)


def test_a_completed_bulk_credit_can_be_triggered(world: World) -> None:
    found = run_json(world, "trigger", "bulk_credit.completed", "--amount", "12.50")
    assert (found["type"], found["payout_id"], found["data"]["succeeded"]) == ("bulk_credit.completed", None, 1)
    world.assert_clean()


def test_fields_of_the_payout_can_be_set(world: World) -> None:
    fields = ("amount=250.00", "metadata.order=7", "metadata.a.b=x=y", "account_title=A Khan")
    data = run_json(world, "trigger", "payout.succeeded", *(word for field in fields for word in ("--set", field)))["data"]
    assert (data["amount"], data["metadata"]) == ("250.00", {"order": "7", "a.b": "x=y"})
    data = run_json(world, "trigger", "payout.created", "--set", "wallet_code=JAZZCASH")["data"]
    assert (data["dest_type"], data["wallet_code"], data["bank_code"]) == ("WALLET", "JAZZCASH", None)
    found = run_json(world, "trigger", "bulk_credit.completed", "--set", "amount=7.50")
    user = world.get("/api/v1/users").json()["data"][0]["id"]
    assert world.get(f"/api/v1/users/{user}/balance").json()["balance"] == "7.50"
    assert found["data"]["succeeded"] == 1


@pytest.mark.parametrize(
    ("event", "field", "problem"),
    [
        ("payout.created", "amuont=5", "did you mean amount"),
        ("payout.created", "requires_approval=true", "metadata.KEY"),
        ("payout.created", "metadata.=5", "metadata.KEY"),
        ("payout.created", "amount", "KEY=VALUE"),
        ("bulk_credit.completed", "metadata.order=7", "only amount"),
    ],
)
def test_a_field_that_cannot_be_set_is_a_usage_error(world: World, event: str, field: str, problem: str) -> None:
    result = run(world, "trigger", event, "--set", field)
    assert result.exit_code == 2
    assert problem in " ".join(result.output.replace("│", " ").split())


def test_an_event_that_does_not_occur_in_time_exits_with_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for at most 30 s, the longest time that the API waits for a status."""
    waits: list[Any] = []

    def respond(_: Client, method: str, path: str, **options: Any) -> Any:
        waits.append(options.get("params", {}).get("timeout"))
        return {"data": []} if path.endswith("/events") else {"id": "payout", "status": "PENDING"}

    monkeypatch.setattr(Client, "request_json", respond)
    result = invoke("trigger", "payout.succeeded", "--json")
    assert (result.exit_code, result.stdout) == (4, "")
    assert json.loads(result.stderr)["code"] == "CONDITION_NOT_MET"
    assert waits == [None, 30, None]
