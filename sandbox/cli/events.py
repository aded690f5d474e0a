"""`psp events` and `psp trigger`: what happened, telling of it again, and making it happen."""

import io
import uuid
from typing import Annotated, Any, Final

import typer

from sandbox.cli import bulk_credit
from sandbox.cli.client import Client, Cursor, Limit, Shown, fail, listed, with_client

app = typer.Typer(help="Events of the merchant whose key is used.", no_args_is_help=True)

# What is done to a payout that waits until the event has happened: a state to be taken to by hand, or an action.
_ROUTES: Final[dict[str, tuple[str, ...]]] = {
    "payout.requested": (),
    "payout.created": (),
    "payout.processing": ("PROCESSING",),
    "payout.retrying": ("PROCESSING", "RETRY"),
    "payout.on_hold": ("PROCESSING", "ON_HOLD"),
    "payout.in_review": ("PROCESSING", "IN_REVIEW"),
    "payout.succeeded": ("SUCCESS",),
    "payout.failed": ("FAILED",),
    "payout.cancelled": ("cancel",),
    "payout.rejected": ("reject",),
    "payout.returned": ("SUCCESS", "RETURNED"),
    "payout.reinitiated": ("FAILED", "reinitiate"),
}
_BULK_CREDIT: Final = "bulk_credit.completed"
_LONGEST_WAIT: Final = 60.0
_BEGIN_REQUESTED: Final = ("payout.requested", "payout.rejected")


@with_client
def trigger(
    client: Client,
    event: Annotated[str, typer.Argument(help="The event's type, such as payout.failed or payout.returned.")],
    amount: Annotated[str, typer.Option("--amount", help="The payout's amount.")] = "100.00",
) -> Shown:
    """Make a payout or a bulk credit, take it to where the event happens, and print the event.

    Exit code 0: it happened; 1: refused; 2: no such event, or wrong usage.
    """
    if event == _BULK_CREDIT:
        found = _credit_somebody(client, amount)
    elif event in _ROUTES:
        found = _lead_payout_to(client, event, amount)
    else:
        raise typer.BadParameter(f"{event} is none of {', '.join((*_ROUTES, _BULK_CREDIT))}.")
    return Shown(found, _line(found))


def _lead_payout_to(client: Client, event: str, amount: str) -> dict[str, Any]:
    body = {
        "merchant_reference": f"trigger-{uuid.uuid4()}",
        "amount": amount,
        "dest_type": "BANK",
        "bank_code": "HBL",
        "account_number": "12345678900004",
        "requires_approval": event in _BEGIN_REQUESTED,
    }
    # It waits for what is done to it by hand, whatever rules the merchant has.
    payout_id = client.post("/api/v1/payouts", body, headers={"X-Sandbox-Scenario": "pending"})["id"]
    for step in _ROUTES[event]:
        if step.isupper():
            client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", {"status": step})
        else:
            method = "PATCH" if step == "reject" else "POST"
            client.write(method, f"/api/v1/payouts/{payout_id}/{step}")
    events: list[dict[str, Any]] = client.get("/api/v1/events", payout_id=payout_id, limit=100)["data"]
    found = next((item for item in events if item["type"] == event), None)
    if found is None:
        fail(f"Payout {payout_id} was made, and there is no {event} of it.")
    return found


def _credit_somebody(client: Client, amount: str) -> dict[str, Any]:
    user_id = client.post("/api/v1/users", {"name": "Bulk Credit"})["id"]
    activity_id = bulk_credit.upload(client, "trigger.csv", io.BytesIO(f"uuid,amount\n{user_id},{amount}\n".encode()))
    bulk_credit.watch(client, activity_id, _LONGEST_WAIT, is_shown=False)
    events: list[dict[str, Any]] = client.get("/api/v1/events", limit=100)["data"]
    found = next((item for item in events if item["data"].get("activity_id") == activity_id), None)
    if found is None:
        fail(f"Bulk credit {activity_id} is done, and there is no {_BULK_CREDIT} of it.")
    return found


@app.command("list")
@with_client
def list_(
    client: Client,
    payout: Annotated[str | None, typer.Option("--payout", help="Only events of the payout with this id.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Shown:
    """List events, newest first. Exit code 0: listed; 1: refused; 2: wrong usage."""
    page = client.get("/api/v1/events", payout_id=payout, limit=limit, cursor=cursor)
    return listed(page, "id", "created_at", "type", "payout_id")


@app.command("resend")
@with_client
def resend(
    client: Client,
    event_id: Annotated[str, typer.Argument(help="The event's id.")],
) -> Shown:
    """Send an event again, now, to every endpoint that it went to and that still exists.

    Exit code 0: it is on its way; 1: not found, it went to no such endpoint, or refused; 2: wrong usage.
    """
    found = client.get(f"/api/v1/events/{event_id}")["deliveries"]
    existing = {endpoint["id"] for endpoint in client.get("/api/v1/webhook-endpoints", limit=100)["data"]}
    deliveries = [delivery for delivery in found if delivery["endpoint_id"] in existing]
    if not deliveries:
        fail(
            f"Event {event_id} went to no endpoint."
            if not found
            else f"No endpoint that event {event_id} went to exists any more."
        )
    sent = [client.post(f"/api/v1/webhook-deliveries/{delivery['id']}/resend") for delivery in deliveries]
    lines = [f"{delivery['id']}  to endpoint {delivery['endpoint_id']}  {delivery['status']}" for delivery in sent]
    return Shown({"deliveries": sent}, "\n".join(lines))


def _line(event: dict[str, Any]) -> str:
    return f"{event['id']}  {event['created_at']}  {event['type']:<20} {event['payout_id'] or ''}"
