"""`psp trigger EVENT`: make an event happen, along the path that leads to it."""

import io
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from sandbox.cli import bulk_credit
from sandbox.cli.client import Client, Shown, with_client
from sandbox.cli.events import line
from sandbox.cli.failures import not_met
from sandbox.domain.choices import EventType

_LONGEST_WAIT: Final = 30
"""Seconds that a state is waited for, which is as long as the API holds an answer."""


@dataclass(frozen=True, slots=True)
class _Route:
    """How a payout comes to an event: its built-in scenario, the state that this leads to, and what is done to it then."""

    scenario: str
    until: str
    actions: tuple[str, ...] = ()


# A payout that has failed or is paid went through PROCESSING, as every real one does. RETURNED comes a minute after SUCCESS by
# its scenario, in a frozen world never by itself; so the bank's return is simulated.
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
) -> Shown:
    """Create a payout or a bulk credit, take it along the real path until the event happens, and print the event.

    The worker handles it like any other: payout.failed passes through PROCESSING. The exit code is 4 if the event does not
    happen in time.
    """
    with client.waiting(f"Waiting for {event}"):
        found = _credit_somebody(client, amount) if event == "bulk_credit.completed" else _lead_payout_to(client, event, amount)
    return Shown(found, line(found))


def _lead_payout_to(client: Client, event: EventType, amount: str) -> dict[str, Any]:
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
    # It answers at once if the payout has passed through the state already.
    payout = client.get(f"{path}/{payout_id}", wait_for=route.until, timeout=_LONGEST_WAIT)
    for action in route.actions:
        if action.isupper():
            client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", {"status": action})
        else:
            client.write("PATCH" if action == "reject" else "POST", f"{path}/{payout_id}/{action}")
    events: list[dict[str, Any]] = client.get("/api/v1/events", payout_id=payout_id, limit=100)["data"]
    found = next((item for item in events if item["type"] == event), None)
    if found is None:
        raise not_met(f"There is no {event} of payout {payout_id}, which is {payout['status']}.")
    return found


def _credit_somebody(client: Client, amount: str) -> dict[str, Any]:
    user_id = client.post("/api/v1/users", {"name": "Bulk Credit"})["id"]
    activity_id = bulk_credit.upload(client, "trigger.csv", io.BytesIO(f"uuid,amount\n{user_id},{amount}\n".encode()))
    bulk_credit.watch(client, activity_id, 2 * _LONGEST_WAIT)
    events: list[dict[str, Any]] = client.get("/api/v1/events", limit=100)["data"]
    found = next((item for item in events if item["data"].get("activity_id") == activity_id), None)
    if found is None:
        raise not_met(f"Bulk credit {activity_id} is done, and there is no bulk_credit.completed of it.")
    return found
