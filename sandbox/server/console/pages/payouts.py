"""The list of payouts, also drawn, and the map of what failed."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from sandbox.domain.enumerations import DestType
from sandbox.domain.payout_states import STATUSES
from sandbox.http.responses import Response
from sandbox.payouts.search import NARROWING
from sandbox.server.console.calls import Refused
from sandbox.server.console.data_table import Column, Row, Table
from sandbox.server.console.payout_trace import payouts_trace
from sandbox.server.console.routing import Pages
from sandbox.server.console.trace import Trace
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
FILTERS: Final = ("q", "status", "dest_type", "user_id", *NARROWING)
_FAILURES: Final = (
    Column("code", "Bank or wallet"),
    Column("failure_code", "Failure code", "code"),
    Column("count", "Payouts", "number"),
)
_DEST_TYPES: Final[tuple[tuple[DestType, str], ...]] = (("BANK", "Bank"), ("WALLET", "Wallet"))
_CAPTION: Final = "Payouts, newest first"


@pages.page("/payouts")
async def payouts(view: View) -> Response:
    """List payouts, newest first, with filters in the URL."""
    query = {**view.given(*FILTERS), **view.period()}
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
    return await view.render(
        "payouts.html",
        tables=[table],
        problem=problem,
        statuses=STATUSES,
        chosen=view.query.get("status", "").split(","),
        dest_types=_DEST_TYPES,
        drawing=await drawn(view, table.rows) if "drawn" in view.query else None,
    )


@pages.page("/payouts/failures")
async def failures(view: View) -> Response:
    """Show how many payouts to which bank or wallet failed for which reason."""
    statistics = (await view.call("get_overview"))["payouts"]
    rows = [
        {**row, "code": row["bank_code"] or row["wallet_code"], "page": page_of_failures(row, statistics["covers"])}
        for row in statistics["by_destination_and_code"]
    ]
    totals = [{**row, "page": page_of_failures(row, statistics["covers"])} for row in statistics["by_failure_code"]]
    most = max((row["count"] for row in rows), default=1)
    return await view.render(
        "failures.html",
        tables=[Table("failures", "Failures by bank or wallet", _FAILURES, rows, "No payout has failed.")],
        destinations=sorted({row["code"] for row in rows}),
        totals=totals,
        cells={(row["failure_code"], row["code"]): {**row, "heat": 1 + 3 * row["count"] // most} for row in rows},
        covers=statistics["covers"],
    )


async def drawn(view: View, payouts: Sequence[Mapping[str, Any]]) -> Trace | None:
    """Return the drawing of payouts, a lane for each; None without payouts."""
    if not payouts:
        return None
    timelines = await asyncio.gather(
        *(view.call("get_payout_timeline", path={"payout_id": payout["id"]}, shown=False) for payout in payouts)
    )
    clock = await view.clock()
    return payouts_trace(payouts, [found["data"] for found in timelines], clock["now"])


def page_of_failures(row: Mapping[str, Any], covers: Mapping[str, Any]) -> str:
    """Return the page that lists exactly the payouts that were counted."""
    query = {name: row[name] for name in NARROWING if row.get(name) is not None}
    return f"/payouts?{urlencode(query if covers['is_complete'] else {**query, 'created_from': covers['since']})}"
