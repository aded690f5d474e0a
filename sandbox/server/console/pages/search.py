"""One search for everything that a merchant has."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandbox.domain.ids import is_uuid
from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.paths import in_header
from sandbox.server.console.routing import Pages
from sandbox.server.console.security import add
from sandbox.server.console.view import View

pages = Pages()
_SHOWN: Final = "8"
_BY_ID: Final = (
    ("get_payout", "payout_id", "/payouts/"),
    ("get_event", "event_id", "/webhooks/events/"),
    ("get_webhook_delivery", "delivery_id", "/webhooks/deliveries/"),
    ("get_webhook_endpoint", "endpoint_id", "/webhooks/"),
    ("get_user", "user_id", "/users/"),
    ("get_sale", "sale_id", "/users/sales/"),
    ("get_bulk_credit", "activity_id", "/users/bulk-credit/"),
    ("get_request", "entry_id", "/requests/"),
)
"""Operation, the name of its path parameter, and the page of what it finds."""
PAYOUTS: Final = (
    Column("merchant_reference", "Reference", link="/payouts/{id}"),
    Column("status", "Status", "status"),
    Column("amount", "Amount", "money"),
    Column("account_number", "Account", "code"),
    Column("created_at", "Created", "time"),
)
USERS: Final = (
    Column("name", "Name", link="/users/{id}"),
    Column("external_id", "External id", "code"),
    Column("created_at", "Created", "time"),
)
CALLS: Final = (
    Column("at", "Time", "time", link="/requests/{id}"),
    Column("status", "Status", "status"),
    Column("method", "Method", "code"),
    Column("path", "Path", link="/requests/{id}"),
    Column("idempotency_key", "Idempotency key", "id"),
)


@pages.page("/search")
async def search(view: View) -> Response:
    """Open the page of the object with this id, or list the payouts, users and calls that contain the text."""
    text = view.query.get("q", "").strip()[:100]
    if is_uuid(text.lower()) and (found := await _page_of(view, text.lower())):
        return Response(303, headers=add([("location", in_header(f"{view.home}{found}"))]))
    tables = await _tables(view, text) if text else []
    return await view.render("search.html", text=text, tables=tables, found=[table for table in tables if table.rows])


async def _page_of(view: View, id_: str) -> str | None:
    """Return the page of the object with this id, or None."""
    replies = await asyncio.gather(
        *(view.call_if_found(operation, path={name: id_}, shown=False) for operation, name, _ in _BY_ID)
    )
    return next((f"{page}{id_}" for reply, (_, _, page) in zip(replies, _BY_ID, strict=True) if reply is not None), None)


async def _tables(view: View, text: str) -> list[Table]:
    payouts, of_amount, users, by_request, calls = await asyncio.gather(
        _found(view, "list_payouts", q=text),
        _found(view, "list_payouts", q=amount_of(text)),
        _found(view, "list_users", q=text),
        _found(view, "list_requests", request_id=text),
        _found(view, "list_requests", q=text),
    )
    return [
        Table("payouts", "Payouts", PAYOUTS, _once(payouts, of_amount)),
        Table("users", "Users", USERS, users),
        Table("requests", "API calls", CALLS, _once(by_request, calls)),
    ]


def amount_of(text: str) -> str:
    """Return an amount as the API writes it, such as 1500.00 for `1,500`; an empty string if the text is not an amount."""
    whole, _, rest = text.replace(",", "").partition(".")
    is_amount = whole.isdecimal() and whole.isascii() and len(whole) < 16 and len(rest) <= 2 and (rest or "0").isdecimal()
    return f"{int(whole)}.{rest:0<2}" if is_amount else ""


async def _found(view: View, operation_id: str, **query: str) -> Sequence[Mapping[str, Any]]:
    """Return the first rows that a list finds. One call reads a bounded number of rows, so old ones may be missing."""
    if not all(query.values()):
        return []
    found = await view.call_if_found(operation_id, query={**query, "limit": _SHOWN})
    rows: Sequence[Mapping[str, Any]] = found["data"] if found else []
    return rows


def _once(*lists: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({row["id"]: row for rows in lists for row in rows}.values())
