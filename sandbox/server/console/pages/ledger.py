"""The ledger: balances, entries, and the audit."""

import asyncio
from typing import Any, Final, get_args

from sandbox.domain.enumerations import Account
from sandbox.http.responses import Response
from sandbox.server.console.calls import Refused
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.flow_chart import MAX_DRAWN, flow_chart, flow_rows, paid_out
from sandbox.server.console.forms import time_of
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
ENTRIES: Final = (
    Column("created_at", "Time", "time"),
    Column("account", "Account", "code"),
    Column("debit", "Debit", "money", value=lambda row: row["amount"] if row["direction"] == "DEBIT" else None),
    Column("credit", "Credit", "money", value=lambda row: row["amount"] if row["direction"] == "CREDIT" else None),
    Column("balance_after", "Balance after", "money"),
    Column("reason", "Reason", "code"),
    Column("description", "Description"),
    Column("payout_id", "Payout", "id", link="/payouts/{payout_id}"),
    Column("transfer_id", "Transfer", "id"),
)
_CHECKS: Final = (
    Column("name", "Check", "code"),
    Column("detail", "What it checks"),
    Column("result", "Result", "status", value=lambda row: "ok" if row["ok"] else "failed"),
    Column("problems", "What was found", value=lambda row: "; ".join(row["problems"]) or "nothing wrong"),
)
_FLOWS: Final = (
    Column("day", "Day"),
    Column("from_account", "From", "code"),
    Column("to_account", "To", "code"),
    Column("count", "Transfers", "number"),
    Column("amount", "Amount", "money"),
)
_CAPTION: Final = "Entries, newest first"
_FILTERED: Final = "No entry matches. Change the filters."
_EMPTY: Final = "No money has moved yet. Top up the balance, or create a payout."


@pages.page("/ledger")
async def ledger(view: View) -> Response:
    """Show the balance, and list its entries, with filters in the URL."""
    query = view.given("account", "payout_id")
    for name in ("created_from", "created_to"):
        if given := view.query.get(name):
            query[name] = time_of(given)
    problem: dict[str, Any] | None = None
    try:
        balance, table = await asyncio.gather(
            view.call("get_balance"),
            view.table(
                "entries", _CAPTION, ENTRIES, "list_ledger_entries", query=query, empty=_FILTERED if query else _EMPTY
            ),
        )  # fmt: skip
    except Refused as error:
        # An incomplete filter, such as half of an id, must not lose the other filters: show the page with the form.
        if error.status != 400:
            raise
        balance = await view.call("get_balance")
        problem, table = error.problem, Table("entries", _CAPTION, ENTRIES, [], "Correct the filters to see entries.")
    return await view.render("ledger.html", tables=[table], balance=balance, problem=problem, accounts=get_args(Account))


@pages.page("/ledger/flow")
async def flow(view: View) -> Response:
    """Draw how much money moved between accounts, day by day."""
    until = view.query.get("until", "")
    query = {"created_to": time_of(f"{until}T00:00")} if until else {}
    balance, found = await asyncio.gather(view.call("get_balance"), view.call("get_balance_flows", query=query))
    days = found["days"]
    settled = paid_out(days) if found["is_complete"] and not query else None
    return await view.render(
        "flow.html",
        tables=[Table("flows", "Money that moved, newest day first", _FLOWS, flow_rows(days), _EMPTY)],
        balance=balance,
        paid_out=settled,
        chart=flow_chart(days, balance, settled) if days else None,
        earlier=days[MAX_DRAWN - 1]["day"] if len(days) > MAX_DRAWN else None,
        found=found,
    )


@pages.page("/ledger/audit")
async def audit(view: View) -> Response:
    """Show each check of the ledger in words. It reads every entry, so it runs only when someone asks for it."""
    if "run" not in view.query:
        return await view.render("audit.html", report=None, failed=[])
    report = await view.call("audit")
    failed = [check for check in report["checks"] if not check["ok"]]
    table = Table("audit", "Checks", _CHECKS, [*failed, *(check for check in report["checks"] if check["ok"])])
    return await view.render("audit.html", tables=[table], report=report, failed=failed)
