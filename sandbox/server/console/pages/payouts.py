"""The list of payouts."""

from dataclasses import replace
from typing import Any, Final

from sandbox.domain.enumerations import DestType
from sandbox.domain.payout_states import STATUSES
from sandbox.http.responses import Response
from sandbox.server.console.calls import Refused
from sandbox.server.console.data_table import Column, Row, Table
from sandbox.server.console.forms import time_of
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()


def destination(row: Row) -> str:
    """Return a payout's bank or wallet, and the account number."""
    return f"{row['bank_code'] or row['wallet_code'] or ''} {row['account_number']}"


COLUMNS: Final = (
    Column("merchant_reference", "Reference", link="/payouts/{id}"),
    Column("amount", "Amount", "money"),
    Column("status", "Status", "status"),
    Column("failure_code", "Failure", "code"),
    Column("account_number", "Account", "code", value=destination),
    Column("user_id", "User", "id", link="/users/{user_id}"),
    Column("created_at", "Created", "time"),
    Column("id", "Id", is_csv_only=True),
)
_FILTERS: Final = ("q", "status", "dest_type", "user_id")
_DEST_TYPES: Final[tuple[tuple[DestType, str], ...]] = (("BANK", "Bank"), ("WALLET", "Wallet"))
_CAPTION: Final = "Payouts, newest first"


@pages.page("/payouts")
async def payouts(view: View) -> Response:
    """List payouts, newest first, with filters in the URL."""
    query = view.given(*_FILTERS)
    for name in ("created_from", "created_to"):
        if given := view.query.get(name):
            query[name] = time_of(given)
    key, equals, value = view.query.get("metadata", "").partition("=")
    if equals:
        query[f"metadata[{key.strip()}]"] = value.strip()
    problem: dict[str, Any] | None = None
    empty = "No payout matches. Change the filters." if query else "No payouts yet. Create the first one with New payout."
    try:
        table = await view.table("payouts", _CAPTION, COLUMNS, "list_payouts", query=query, empty=empty)
    except Refused as error:
        # An incomplete filter, such as half of a user's id, must not lose the other filters: show the page with the form.
        if error.status != 400:
            raise
        problem, table = error.problem, Table("payouts", _CAPTION, COLUMNS, [], "Correct the filters to see payouts.")
    if table.next_cursor and not table.rows:
        table = replace(table, empty="No match among the newest payouts. Go to the next page to search on.")
    chosen = view.query.get("status", "").split(",")
    return await view.render(
        "payouts.html", tables=[table], problem=problem, statuses=STATUSES, chosen=chosen, dest_types=_DEST_TYPES
    )
