"""`psp events` and `psp trigger`: what happened, telling of it again, and making it happen."""

import uuid
from typing import Annotated, Any, Final

import typer

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, ReadyFile, Url, connect, fail, show

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
_BEGIN_REQUESTED: Final = ("payout.requested", "payout.rejected")


def trigger(
    event: Annotated[str, typer.Argument(help="The event's type, such as payout.failed or payout.returned.")],
    amount: Annotated[str, typer.Option("--amount", help="The payout's amount.")] = "100.00",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a payout, take it to where the event happens, and print the event.

    Exit code 0: it happened; 1: refused; 2: no such event, or wrong usage.
    """
    if event not in _ROUTES:
        raise typer.BadParameter(f"{event} is none of {', '.join(_ROUTES)}.")
    client = connect(url, api_key, ready_file)
    body = {
        "merchant_reference": f"trigger-{uuid.uuid4()}",
        "amount": amount,
        "dest_type": "BANK",
        "bank_code": "HBL",
        "account_number": "12345678900004",
        "requires_approval": event in _BEGIN_REQUESTED,
    }
    # It waits for what is done to it by hand, whatever rules the merchant has.
    headers = {"X-IDEMPOTENCY-KEY": str(uuid.uuid4()), "X-Sandbox-Scenario": "pending"}
    payout_id = client.ask("POST", "/api/v1/payouts", json=body, headers=headers)["id"]
    for step in _ROUTES[event]:
        if step.isupper():
            client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", {"status": step})
        else:
            method = "PATCH" if step == "reject" else "POST"
            client.ask(method, f"/api/v1/payouts/{payout_id}/{step}", json={}, headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())})
    events = client.get("/api/v1/events", payout_id=payout_id, limit=100)["data"]
    found = next((item for item in events if item["type"] == event), None)
    if found is None:
        fail(f"Payout {payout_id} was made, and there is no {event} of it.")
    show(found, as_json=as_json, text=_line(found))


@app.command("list")
def list_(
    payout: Annotated[str | None, typer.Option("--payout", help="Only events of the payout with this id.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="How many at most.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="The next_cursor of the page before.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """List events, newest first. Exit code 0: listed; 1: refused; 2: wrong usage."""
    page = connect(url, api_key, ready_file).get("/api/v1/events", payout_id=payout, limit=limit, cursor=cursor)
    lines = [_line(event) for event in page["data"]] or ["There are no events."]
    if page["has_more"]:
        lines.append(f"There are more: --cursor {page['next_cursor']}")
    show(page, as_json=as_json, text="\n".join(lines))


@app.command("resend")
def resend(
    event_id: Annotated[str, typer.Argument(help="The event's id.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Send an event again, now, to every endpoint that it went to.

    Exit code 0: it is on its way; 1: not found, it went to no endpoint, or refused; 2: wrong usage.
    """
    client = connect(url, api_key, ready_file)
    deliveries = client.get(f"/api/v1/events/{event_id}")["deliveries"]
    if not deliveries:
        fail(f"Event {event_id} went to no endpoint.")
    sent = [client.post(f"/api/v1/webhook-deliveries/{delivery['id']}/resend") for delivery in deliveries]
    lines = [f"{delivery['id']}  to endpoint {delivery['endpoint_id']}  {delivery['status']}" for delivery in sent]
    show({"deliveries": sent}, as_json=as_json, text="\n".join(lines))


def _line(event: dict[str, Any]) -> str:
    return f"{event['id']}  {event['created_at']}  {event['type']:<20} {event['payout_id'] or ''}"
