"""Deliveries of webhooks: the list, and one delivery with its attempts."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from sandbox.domain.enumerations import EVENT_TYPES, DeliveryStatus
from sandbox.http.responses import Response
from sandbox.server.console.charts import share
from sandbox.server.console.data_table import Column
from sandbox.server.console.routing import Pages
from sandbox.server.console.texts import delivery_state
from sandbox.server.console.view import View

pages = Pages()
STATUSES: Final[tuple[str, ...]] = get_args(DeliveryStatus)
TO_DELIVERY: Final = "/webhooks/deliveries/{id}"
_AFTER_TYPE: Final = (
    Column("status", "Status", "status", link=TO_DELIVERY, value=delivery_state),
    Column("attempt_count", "Attempts", "number"),
    Column("next_attempt_at", "Next attempt", "time"),
    Column("id", "Id", "id", link=TO_DELIVERY),
)
_START: Final = (
    Column("created_at", "Created", "time", link=TO_DELIVERY),
    Column("event_type", "Event", link="/webhooks/events/{event_id}"),
)
COLUMNS_OF_ENDPOINT: Final = (*_START, *_AFTER_TYPE)
COLUMNS: Final = (*_START, Column("url", "Endpoint", "url", link="/webhooks/{endpoint_id}"), *_AFTER_TYPE)
COLUMNS_OF_EVENT: Final = (
    Column("url", "Endpoint", "url", link="/webhooks/{endpoint_id}"),
    *_AFTER_TYPE,
)
_PHASES: Final = (("dns_ms", "DNS", 2), ("connect_ms", "Connect", 3), ("tls_ms", "TLS", 4), ("first_byte_ms", "First byte", 1))
BAR_WIDTH: Final = 400


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of an attempt: its part of a bar of BAR_WIDTH."""

    name: str
    milliseconds: float | None
    x: float
    width: float
    colour: int
    """The number of its colour in charts; 0 for the rest of the bar."""


@pages.page("/webhooks/deliveries")
async def deliveries(view: View) -> Response:
    """List deliveries, with filters in the URL."""
    urls = await urls_by_id(view)
    table = await view.table(
        "deliveries", "Deliveries, newest first", COLUMNS, "list_webhook_deliveries",
        query={**view.given("status", "endpoint_id", "event_id", "event_type"), **view.period()},
        prepare=lambda row: with_url(row, urls),
        empty="No delivery matches." if view.query else "Nothing was sent yet. Add an endpoint, then create a payout.",
    )  # fmt: skip
    choices = [(id_, f"{url} (…{id_[-4:]})") for id_, url in urls.items()]
    return await view.render("deliveries.html", tables=[table], statuses=STATUSES, endpoints=choices, event_types=EVENT_TYPES)


@pages.page("/webhooks/deliveries/{delivery_id}")
async def delivery(view: View) -> Response:
    """Show a delivery: why it happened, each attempt, and what happens next."""
    path = {"delivery_id": view.path_parameters["delivery_id"]}
    found, explained = await asyncio.gather(
        view.call("get_webhook_delivery", path=path), view.call("explain_webhook_delivery", path=path)
    )
    details = {attempt["attempt"]: attempt["detail"] for attempt in explained["attempts"]}
    attempts = [
        {**attempt, "detail": details.get(attempt["attempt"], ""), "phases": phases(attempt["timings"])}
        for attempt in reversed(found["attempts"])
    ]
    return await view.render(
        "delivery.html", delivery=found, explained=explained, attempts=attempts, bar_width=BAR_WIDTH, header_lines=header_lines
    )


async def urls_by_id(view: View) -> dict[str, str]:
    """Return endpoint id → URL of all endpoints that exist."""
    found = await view.call("list_webhook_endpoints", query={"limit": "100"}, shown=False)
    return {endpoint["id"]: endpoint["url"] for endpoint in found["data"]}


def with_url(row: Mapping[str, Any], urls: Mapping[str, str]) -> dict[str, Any]:
    """Return a delivery with its endpoint's URL."""
    return {**row, "url": urls.get(row["endpoint_id"], "deleted endpoint")}


def phases(timings: Mapping[str, Any]) -> list[Phase]:
    """Return an attempt's phases side by side; the last one is the rest of the time, the response's body."""
    total = timings["total_ms"]
    known = [(name, timings[field], colour) for field, name, colour in _PHASES]
    spent = sum(value or 0 for _, value, _ in known)
    found, x = [], 0.0
    for name, value, colour in (*known, ("Rest", max(total - spent, 0), 0)):
        width = min(share(value or 0, max(total, spent), BAR_WIDTH), BAR_WIDTH - x)
        found.append(Phase(name, value, round(x, 1), round(width, 1), colour))
        x += width
    return found


def header_lines(headers: Mapping[str, str]) -> str:
    """Return headers as in a request: one on each line."""
    return "\n".join(f"{name}: {value}" for name, value in headers.items())
