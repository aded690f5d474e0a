"""Events: the list, one event with its body and deliveries, and the types of events, each with a sample."""

from typing import Final

from sandbox.domain.enumerations import EVENT_TYPES, EventType
from sandbox.domain.payout_states import TRANSITIONS
from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.pages.deliveries import COLUMNS_OF_EVENT, urls_by_id, with_url
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View
from sandbox.server.docs.schemas import payload_example

pages = Pages()
TO_EVENT: Final = "/webhooks/events/{id}"
COLUMNS: Final = (
    Column("created_at", "Created", "time", link=TO_EVENT),
    Column("type", "Type", link=TO_EVENT),
    Column("previous_status", "From", "status"),
    Column("data.status", "To", "status"),
    Column("data.amount", "Amount", "money"),
    Column("data.merchant_reference", "Reference", link="/payouts/{payout_id}"),
    Column("payout_id", "Payout", "id", link="/payouts/{payout_id}"),
    Column("id", "Id", "id", link=TO_EVENT),
)


@pages.page("/webhooks/events")
async def events(view: View) -> Response:
    """List events; of one payout, if the URL names it."""
    table = await view.table(
        "events", "Events, newest first", COLUMNS, "list_events",
        query={**view.given("payout_id", "type"), **view.period()},
        empty="No event matches." if view.query else "No events yet. Each change of a payout is an event: create a payout.",
    )  # fmt: skip
    return await view.render("events.html", tables=[table], event_types=EVENT_TYPES)


@pages.page("/webhooks/types")
async def types(view: View) -> Response:
    """List the types of events: which changes each tells of, and what its webhook contains."""
    return await view.render("event_types.html", types=[(name, _changes(name), payload_example(name)) for name in EVENT_TYPES])


def _changes(event_type: EventType) -> list[tuple[str | None, str]]:
    """Return the changes of a payout's status that such an event tells of; none if it is not about a payout."""
    return [change for change, found in TRANSITIONS.items() if found.event == event_type]


@pages.page("/webhooks/events/{event_id}")
async def event(view: View) -> Response:
    """Show an event: its body as endpoints receive it, and its deliveries."""
    found = await view.call("get_event", path={"event_id": view.path_parameters["event_id"]})
    urls = await urls_by_id(view)
    rows = [with_url(row, urls) for row in found["deliveries"]]
    table = Table("deliveries", "Its deliveries", COLUMNS_OF_EVENT, rows, "No endpoint subscribes to this event.")
    body = {name: value for name, value in found.items() if name not in ("created_at", "payout_id", "deliveries")}
    return await view.render("event.html", tables=[table], event=found, body=body)
