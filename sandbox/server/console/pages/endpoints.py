"""Webhook endpoints: the list, a new one, and one endpoint with everything that can be done with it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, get_args

from sandbox.domain.enumerations import (
    EVENT_PATTERNS,
    EVENT_TYPES,
    FilterOperator,
    HashAlgorithm,
    KeyEncoding,
    RetryProfile,
    SignatureEncoding,
    Signing,
    SigningTime,
    TimestampFormat,
)
from sandbox.domain.event_filters import KNOWN_FIELDS
from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.endpoint_charts import charts, slots
from sandbox.server.console.endpoint_health import in_short
from sandbox.server.console.endpoint_trace import endpoint_trace, health
from sandbox.server.console.pages import deliveries
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
_SHORT: Final = 10
_SPARE_FILTERS: Final = 2
"""Empty rows for more filters in a form."""
_OPERATORS: Final[Mapping[FilterOperator, str]] = {
    "eq": "equals",
    "ne": "does not equal",
    "in": "is one of",
    "gte": "is at least",
    "lte": "is at most",
    "prefix": "begins with",
    "exists": "exists (true or false)",
}
_SIGNINGS: Final[Mapping[Signing, str]] = {
    "v1": "v1 · Standard Webhooks, with a shared secret",
    "v1a": "v1a · Standard Webhooks, with a key pair",
    "stripe": "stripe · as Stripe signs",
    "github": "github · as GitHub signs",
    "safepay": "safepay · as Safepay Raast signs and writes events",
    "custom": "custom · described below",
}
_RETRIES: Final[Mapping[RetryProfile, str]] = {
    "standard": "standard · for three days",
    "fast": "fast · for half a minute",
    "server_errors": "server errors · fast, 3xx and 4xx are final",
}
_TIMES: Final[Mapping[SigningTime, str]] = {"host": "host's clock", "merchant": "merchant's clock"}
CHOICES: Final = {
    "event_types": EVENT_TYPES,
    "patterns": list(EVENT_PATTERNS),
    "fields": KNOWN_FIELDS,
    "operators": list(_OPERATORS.items()),
    "signings": list(_SIGNINGS.items()),
    "algorithms": get_args(HashAlgorithm),
    "encodings": get_args(SignatureEncoding),
    "timestamp_formats": get_args(TimestampFormat),
    "key_encodings": get_args(KeyEncoding),
    "retries": list(_RETRIES.items()),
    "times": list(_TIMES.items()),
}
"""The choices of the forms."""

COLUMNS: Final = (
    Column("url", "URL", "url", link="/webhooks/{id}"),
    Column("state", "State", "status", link="/webhooks/{id}"),
    Column("trouble", "Trouble"),
    Column("last_failure.failure", "Last failure", link="/webhooks/deliveries/{last_failure.delivery_id}"),
    Column("event_types", "Event types", "list"),
    Column("signing", "Signing", "code"),
    Column("description", "Description"),
    Column("id", "Id", "id", link="/webhooks/{id}"),
)
_OVER_TIME: Final = (
    Column("at", "From", "time"),
    Column("succeeded", "Succeeded", "number"),
    Column("failed", "Failed", "number", link="/webhooks/deliveries/{delivery_id}"),
    Column("milliseconds", "Half answered within (ms)", "number"),
    Column("late", "Latest, seconds after the event", "number"),
)
_PREVIEW: Final = (
    Column("matches", "Sent", "status", value=lambda row: "sent" if row["matches"] else "not sent"),
    Column("type", "Event", link="/webhooks/events/{event_id}"),
    Column("reason", "Because"),
    Column("event_id", "Id", "id", link="/webhooks/events/{event_id}"),
)


@pages.page("/webhooks")
async def endpoints(view: View) -> Response:
    """List webhook endpoints."""
    table = await view.table(
        "endpoints", "Webhook endpoints, newest first", COLUMNS, "list_webhook_endpoints",
        empty="No endpoints yet, so no event is sent anywhere. Add one: press n.",
    )  # fmt: skip
    found = await _healths(view)
    return await view.render(
        "endpoints.html",
        tables=[replace(table, rows=[{**found.get(row["id"], {"state": row["status"]}), **row} for row in table.rows])],
    )


@pages.page("/webhooks/new")
async def new(view: View) -> Response:
    """Ask for an endpoint, and show its secret once."""
    return await view.render("endpoint_new.html", choices=CHOICES, rows=filter_rows([]))


@pages.page("/webhooks/{endpoint_id}")
async def endpoint(view: View) -> Response:
    """Show an endpoint: its state, its deliveries, and what can be done with it."""
    path = {"endpoint_id": view.path_parameters["endpoint_id"]}
    found, table, attempted, clock, healths = await asyncio.gather(
        view.call("get_webhook_endpoint", path=path),
        view.table(
            "deliveries", "Its deliveries, newest first", deliveries.COLUMNS_OF_ENDPOINT, "list_webhook_deliveries",
            query={**path, **view.given("status")}, limit=_SHORT,
            empty="Nothing was sent to it yet. Send a test event, or create a payout.",
        ),
        view.call("list_delivery_attempts", query={**path, "limit": "100"}),
        view.clock(),
        _healths(view),
    )  # fmt: skip
    shown, over_time = attempted["data"], slots(attempted["data"])
    return await view.render(
        "endpoint.html",
        drawing=endpoint_trace(shown[:_SHORT], clock["now"]) if shown else None,
        health=health(shown, clock["now"]),
        covered=len(shown),
        charts=charts(over_time) if over_time else [],
        tables=[table, Table("over-time", "Attempts over time", _OVER_TIME, [asdict(slot) for slot in over_time])],
        endpoint=found,
        state=healths.get(found["id"]),
        choices=CHOICES,
        header_lines=deliveries.header_lines,
        rows=filter_rows(found["filters"]),
        preview=_preview(view, path["endpoint_id"]),
        tried=submitted(view, f"preview-{path['endpoint_id']}", "event_types", "filters"),
        recovered=submitted(view, f"recover-{path['endpoint_id']}", "since", "until", "which", "event_types"),
    )


async def _healths(view: View) -> dict[str, dict[str, Any]]:
    """Return how the endpoints do, by id."""
    found, clock = await asyncio.gather(view.call("list_endpoint_health", shown=False), view.clock())
    return {row["endpoint_id"]: in_short(row, clock["now"]) for row in found["data"]}


def _preview(view: View, endpoint_id: str) -> Table | None:
    """Return the events that a preview has checked; None if none was asked for."""
    result = view.fields(f"preview-{endpoint_id}").result
    if result is None:
        return None
    return Table(
        "preview", "What it would have received", _PREVIEW, result["data"],
        "There are no events yet. Create a payout first.",
    )  # fmt: skip


def filter_rows(filters: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the rows of the form that edits filters: one for each, and empty ones for more."""
    rows = [{"field": one["field"], "op": one["op"], "value": as_entered(one["value"])} for one in filters]
    return rows + [{"field": "", "op": "", "value": ""}] * max(_SPARE_FILTERS, 3 - len(rows))


def as_entered(value: Any) -> str:
    """Return a value as the user would enter it in a JSON field: a text without quotes, unless the text alone is JSON."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value, ensure_ascii=False)


def submitted(view: View, form_id: str, *names: str) -> dict[str, str]:
    """Return the fields of a submitted form whose names begin with one of `names`, for another form that repeats them."""
    fields = view.fields(form_id)
    if fields.state is None:
        return {}
    return {name: ",".join(values) for name, values in fields.state.values.items() if name.split(":")[0].split(".")[0] in names}
