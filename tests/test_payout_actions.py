"""The list of a payout's actions names exactly the requests that the API accepts."""

import uuid
from typing import Any, get_args

import httpx
import pytest

from sandbox.domain.payout_states import STATUSES, legal_from
from sandbox.payouts.possible_actions import ActionOperation
from tests.harness.command import invoke
from tests.harness.world import World

# How to bring a payout into each status: fields of the create, and simulations.
SETUPS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "REQUESTED": ({"requires_approval": True}, []),
    "PENDING": ({}, []),
    "PROCESSING": ({}, ["PROCESSING"]),
    "RETRY": ({}, ["PROCESSING", "RETRY"]),
    "ON_HOLD": ({}, ["PROCESSING", "ON_HOLD"]),
    "IN_REVIEW": ({}, ["PROCESSING", "IN_REVIEW"]),
    "SUCCESS": ({}, ["SUCCESS"]),
    "FAILED": ({}, ["FAILED"]),
    "CANCELLED": ({}, ["CANCELLED"]),
    "REJECTED": ({"requires_approval": True}, ["REJECTED"]),
    "RETURNED": ({}, ["SUCCESS", "RETURNED"]),
}
METHODS = {"approve_payout": "PATCH", "reject_payout": "PATCH", "cancel_payout": "POST", "reinitiate_payout": "POST"}


def payout_in(world: World, status: str) -> str:
    """Create a payout in `status`, and return its id."""
    fields, path = SETUPS[status]
    payout_id: str = world.create_payout("0004", **fields)["id"]
    for step in path:
        assert send(world.client, payout_id, "simulate_payout", {"status": step}).status_code == 200
    return payout_id


def send(client: httpx.Client, payout_id: str, operation: str, body: dict[str, Any]) -> httpx.Response:
    """Call one of the operations that `list_payout_actions` names."""
    headers = {"X-IDEMPOTENCY-KEY": str(uuid.uuid4())}
    if operation == "simulate_payout":
        return client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", json=body, headers=headers)
    path = f"/api/v1/payouts/{payout_id}/{operation.removesuffix('_payout')}"
    return client.request(METHODS[operation], path, json=body, headers=headers)


def actions(client: httpx.Client, payout_id: str) -> list[dict[str, Any]]:
    response = client.get(f"/sandbox/v1/payouts/{payout_id}/actions")
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["actions"]
    return found


@pytest.mark.parametrize("status", STATUSES)
def test_exactly_the_listed_requests_are_accepted_and_lead_to_the_listed_status(world: World, status: str) -> None:
    unchanged = payout_in(world, status)
    listed = actions(world.client, unchanged)
    for action in listed:
        changed = send(world.client, payout_in(world, status), action["operation"], action["body"])
        assert (changed.status_code, changed.json()["status"]) == (200, action["to"]), changed.text
        assert changed.json()["failure_code"] == action["default_failure_code"]
    offered = {(action["operation"], action["body"].get("status")) for action in listed}
    possible = {(operation, None) for operation in METHODS} | {("simulate_payout", to) for to in STATUSES if to != status}
    for operation, to in possible - offered:
        refused = send(world.client, unchanged, operation, {} if to is None else {"status": to})
        assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE"), (operation, to)
        if to is not None:
            assert all(text in refused.json()["detail"] for text in legal_from(status) or [f"{status} is a final state."])
    assert send(world.client, unchanged, "simulate_payout", {"status": status}).json()["status"] == status
    assert world.path_of(unchanged)[-1] == status
    assert set(METHODS) | {"simulate_payout"} == set(get_args(ActionOperation))
    world.assert_clean()


@pytest.mark.parametrize("status", STATUSES)
def test_a_member_key_may_do_exactly_what_is_listed_for_members(world: World, member: httpx.Client, status: str) -> None:
    for action in actions(member, payout_in(world, status)):
        response = send(member, payout_in(world, status), action["operation"], action["body"])
        assert response.status_code == (403 if action["access"] == "admin" else 200), (action, response.text)


@pytest.mark.parametrize("status", STATUSES)
def test_a_failure_code_is_accepted_exactly_where_codes_are_listed(world: World, status: str) -> None:
    for action in actions(world.client, payout_in(world, status)):
        body = {**action["body"], "failure_code": "NAME_MISMATCH"}
        changed = send(world.client, payout_in(world, status), action["operation"], body)
        if action["failure_codes"]:
            assert "NAME_MISMATCH" in action["failure_codes"]
            assert (changed.status_code, changed.json()["failure_code"]) == (200, "NAME_MISMATCH")
        else:
            assert (changed.status_code, changed.json()["code"]) == (400, "VALIDATION_ERROR")


def test_the_command_prints_what_each_action_does(world: World) -> None:
    payout = world.create_payout("0004", requires_approval=True)["id"]
    shown = invoke("payouts", "actions", payout, "--url", world.stack.api_url, "--api-key", world.api_key).stdout
    assert "  approve              REQUESTED → PENDING. Moves no money. Needs an admin key.\n" in shown
    assert "  cancel               REQUESTED → CANCELLED. Makes the locked amount available again.\n" in shown
    assert "  simulate CANCELLED   REQUESTED → CANCELLED." in shown
