"""The aggregator: the vendor's data about users, the calls that read it, and the rows that could not be read."""

import asyncio
from typing import Final

from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
_LOOK_UP: Final = "vendor_user_id"
_TO_BALANCE: Final = "/users/aggregator?vendor_user_id={user_id}"
_WAITING: Final = (
    Column("user_id", "Vendor's user id", "code", link=_TO_BALANCE),
    Column("requested_payout", "Requested, not paid", "money"),
)
_FETCHES: Final = (
    Column("at", "At", "time"),
    Column("outcome", "Outcome", "status"),
    Column("status", "HTTP", "number"),
    Column("page", "Page", "number"),
    Column("rows", "Rows", "number"),
    Column("new_rows", "New", "number"),
    Column("dead_letters", "Unreadable", "number"),
    Column("duration_ms", "ms", "number"),
    Column("error", "Error"),
    Column("url", "URL", "code"),
)
_DEAD_LETTERS: Final = (
    Column("created_at", "Read", "time"),
    Column("reason", "Why it could not be read"),
    Column("raw", "Row", "code"),
)


@pages.page("/users/aggregator")
async def aggregator(view: View) -> Response:
    """Show the source, who waits for money, the calls and the dead letters."""
    user_id = view.query.get(_LOOK_UP, "").strip()
    source, waiting, fetches, dead_letters, balance, requested = await asyncio.gather(
        view.call("get_source"),
        view.table(
            "waiting", "Users who wait for money", _WAITING, "list_requested_payouts",
            empty="According to the vendor, nobody waits for money.",
        ),
        view.table(
            "fetches", "Calls to the vendor, newest first", _FETCHES, "list_fetches", limit=10,
            empty="No call yet. The vendor is read every 20 seconds once there is something to read.",
        ),
        view.table(
            "dead-letters", "Dead letters: rows that could not be read", _DEAD_LETTERS, "list_dead_letters", limit=10,
            empty="Every row of the vendor could be read.",
        ),
        _if_given(view, "get_vendor_balance", user_id),
        _if_given(view, "get_requested_payout", user_id),
    )  # fmt: skip
    return await view.render(
        "aggregator.html",
        tables=[waiting, fetches, dead_letters],
        source=source,
        user_id=user_id,
        balance=balance,
        requested=requested,
    )


async def _if_given(view: View, operation_id: str, user_id: str) -> object:
    return await view.call_if_found(operation_id, path={"user_id": user_id}) if user_id else None
