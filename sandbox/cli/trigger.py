"""`psp trigger EVENT`: make an event happen through the same states as in production."""

import io
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from sandbox.cli import bulk_credit
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.events import line
from sandbox.cli.failures import not_met
from sandbox.domain.choices import EventType

_MAX_WAIT_SECONDS: Final = 30
"""Seconds to wait for a state: the longest time that the API holds a request."""


@dataclass(frozen=True, slots=True)
class _Route:
    """How to make a payout cause an event: its built-in scenario, the state to wait for, and the actions to take then."""

    scenario: str
    until: str
    actions: tuple[str, ...] = ()


# Every route goes through real states: a failed or paid payout was in PROCESSING before. The scenario `returned` waits a minute
# after SUCCESS, and forever if the clock is frozen, so the return is simulated.
ROUTES: Final[dict[EventType, _Route]] = {
    "payout.requested": _Route("pending", "REQUESTED"),
    "payout.created": _Route("pending", "PENDING"),
    "payout.processing": _Route("slow_success", "PROCESSING"),
    "payout.retrying": _Route("retry_then_success", "RETRY"),
    "payout.on_hold": _Route("on_hold", "ON_HOLD"),
    "payout.in_review": _Route("in_review", "IN_REVIEW"),
    "payout.succeeded": _Route("success", "SUCCESS"),
    "payout.failed": _Route("failed", "FAILED"),
    "payout.cancelled": _Route("pending", "PENDING", ("cancel",)),
    "payout.rejected": _Route("pending", "REQUESTED", ("reject",)),
    "payout.returned": _Route("success", "SUCCESS", ("RETURNED",)),
    "payout.reinitiated": _Route("failed", "FAILED", ("reinitiate",)),
}


@with_client
def trigger(
    client: Client,
    event: Annotated[EventType, typer.Argument(help="The event's type.")],
    amount: Annotated[str, typer.Option("--amount", help="The amount of the payout or the credit.")] = "100.00",
) -> Output:
    """Create a payout or a bulk credit, move it to the event through all its real states, and print the event.

    A worker processes it like any other: a payout passes through PROCESSING before payout.failed. The exit code is 4 if the
    event does not happen in time.
    """
    with client.waiting(f"Waiting for {event}"):
        found = _credit_new_user(client, amount) if event == "bulk_credit.completed" else _move_payout_to(client, event, amount)
    return Output(found, line(found))


def _move_payout_to(client: Client, event: EventType, amount: str) -> dict[str, Any]:
    route = ROUTES[event]
    body = {
        "merchant_reference": f"trigger-{uuid.uuid4()}",
        "amount": amount,
        "dest_type": "BANK",
        "bank_code": "HBL",
        "account_number": "12345678900004",
        "requires_approval": route.until == "REQUESTED",
    }
    path = "/api/v1/payouts"
    payout_id = client.post(path, body, headers={"X-Sandbox-Scenario": route.scenario})["id"]
    # The API responds at once if the payout has already passed through the state.
    payout = client.get(f"{path}/{payout_id}", wait_for=route.until, timeout=_MAX_WAIT_SECONDS)
    for action in route.actions:
        if action.isupper():
            client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", {"status": action})
        else:
            client.write("PATCH" if action == "reject" else "POST", f"{path}/{payout_id}/{action}")
    events: list[dict[str, Any]] = client.get("/api/v1/events", payout_id=payout_id, limit=100)["data"]
    found = next((item for item in events if item["type"] == event), None)
    if found is None:
        raise not_met(f"Payout {payout_id} is {payout['status']} and has no {event} event.")
    return found


def _credit_new_user(client: Client, amount: str) -> dict[str, Any]:
    user_id = client.post("/api/v1/users", {"name": "Bulk Credit"})["id"]
    activity_id = bulk_credit.upload(client, "trigger.csv", io.BytesIO(f"uuid,amount\n{user_id},{amount}\n".encode()))
    bulk_credit.watch(client, activity_id, 2 * _MAX_WAIT_SECONDS)
    events: list[dict[str, Any]] = client.get("/api/v1/events", limit=100)["data"]
    found = next((item for item in events if item["data"].get("activity_id") == activity_id), None)
    if found is None:
        raise not_met(f"Bulk credit {activity_id} is done, but has no bulk_credit.completed event.")
    return found
