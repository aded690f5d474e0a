"""Users: the list, and one user with the wallet."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column
from sandbox.server.console.pages.payouts import drawn
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
_SHORT: Final = 10
"""Rows of each table on a user's page, which has several."""
TO_USER: Final = "/users/{user_id}"
TO_PAYOUT: Final = "/payouts/{payout_id}"
_TO_CAUSE: Final = "/users/{section}/{cause_id}"
_CAUSE: Final = re.compile(r"(sale|bulk credit) ([0-9a-f-]{36})( line \d+)?")
"""The API's description of a transfer to a wallet that a sale or a file caused."""
_SECTIONS: Final = {"sale": "sales", "bulk credit": "bulk-credit"}


def account(row: Mapping[str, Any]) -> str | None:
    """Return a destination in one cell, such as `HBL 12345678900001`; `row` is a destination or a payout."""
    number = row.get("account_number")
    return f"{row.get('bank_code') or row.get('wallet_code')} {number}" if number else None


COLUMNS: Final = (
    Column("name", "Name", link="/users/{id}"),
    Column("external_id", "External id", "code", link="/users/{id}"),
    Column("destination", "Destination", "code", value=lambda row: account(row["destination"] or {})),
    Column("created_at", "Created", "time"),
    Column("id", "Id", "id", link="/users/{id}"),
)
_PAYOUTS: Final = (
    Column("created_at", "Created", "time", link="/payouts/{id}"),
    Column("amount", "Amount", "money"),
    Column("status", "Status", "status", link="/payouts/{id}"),
    Column("failure_code", "Failure", "code"),
    Column("account", "Destination", "code", value=account),
    Column("id", "Id", "id", link="/payouts/{id}"),
)
_ENTRIES: Final = (
    Column("created_at", "At", "time"),
    Column("reason", "Reason"),
    Column("description", "Description", link=_TO_CAUSE),
    Column(
        "amount", "Amount", "money", value=lambda row: row["amount"] if row["direction"] == "CREDIT" else f"-{row['amount']}"
    ),
    Column("balance_after", "Balance after", "money"),
    Column("payout_id", "Payout", "id", link=TO_PAYOUT),
)
_TRANSACTIONS: Final = (
    Column("created_at", "At", "time"),
    Column("type", "Type"),
    Column("amount", "Amount", "money"),
    Column("reference", "Reference", link=_TO_CAUSE),
    Column("payout_id", "Payout", "id", link=TO_PAYOUT),
    Column("id", "Id", "id"),
)
_SALES: Final = (
    Column("brand", "Brand", link="/users/sales/{id}"),
    Column("earning", "Earning", "money"),
    Column("status", "Status", "status"),
    Column("advance_amount", "Advance", "money"),
    Column("final_amount", "Final", "money"),
    Column("created_at", "Created", "time"),
    Column("id", "Id", "id", link="/users/sales/{id}"),
)


@pages.page("/users")
async def users(view: View) -> Response:
    """List and create users."""
    table, directory = await asyncio.gather(
        view.table(
            "users", "Users, newest first", COLUMNS, "list_users",
            query=view.given("q", "created_from", "created_to"),
            empty="No user matches." if view.query else "No users yet. Create the first one above: press n.",
        ),
        view.call("get_directory", shown=False),
    )  # fmt: skip
    return await view.render("users.html", tables=[table], destinations=destinations(directory))


@pages.page("/users/{user_id}")
async def user(view: View) -> Response:
    """Show a user: the wallet, its history, payouts and sales."""
    path = {"user_id": view.path_parameters["user_id"]}
    found = await view.call("get_user", path=path)
    balance, summary, vendor, directory, *tables = await asyncio.gather(
        view.call("get_user_balance", path=path),
        view.call("get_user_summary", path=path),
        view.call_if_found("get_vendor_balance", path={"user_id": found["vendor_user_id"]}),
        view.call("get_directory", shown=False),
        view.table(
            "history", "Wallet history", _ENTRIES, "list_wallet_entries", path=path, limit=_SHORT, prepare=_with_cause,
            empty="No money has moved in this wallet yet.",
        ),
        view.table("payouts", "Payouts", _PAYOUTS, "list_payouts", query=path, limit=_SHORT, empty="No payout requested yet."),
        view.table("sales", "Sales", _SALES, "list_sales", query=path, limit=_SHORT, empty="No sale was recorded yet."),
        view.table(
            "transactions", "Transactions", _TRANSACTIONS, "list_user_transactions", path=path, limit=_SHORT,
            prepare=_with_cause, empty="No transactions yet.",
        ),
    )  # fmt: skip
    where = found["destination"]
    payouts = next(table for table in tables if table.name == "payouts").rows[:_SHORT]
    return await view.render(
        "user.html",
        tables=tables,
        user=found,
        drawing=await drawn(view, payouts),
        balance=balance,
        summary=summary,
        vendor=vendor,
        account=account(where or {}),
        destinations=destinations(directory),
        chosen=_choice(where["dest_type"], where["bank_code"] or where["wallet_code"]) if where else "",
    )


def _with_cause(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an entry or a transaction with the page of the sale or the file that caused it, if any."""
    found = _CAUSE.fullmatch(row.get("description") or row.get("reference") or "")
    return {**row, "section": _SECTIONS[found[1]], "cause_id": found[2]} if found else row


def destinations(directory: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the banks and wallets as choices of a select: the destination's fields as JSON, and the text."""
    banks = [(_choice("BANK", bank["code"]), f"{bank['code']} · {bank['name']}") for bank in directory["banks"]]
    wallets = [(_choice("WALLET", wallet["code"]), f"{wallet['code']} · {wallet['name']}") for wallet in directory["wallets"]]
    return wallets + banks


def _choice(dest_type: str, code: str) -> str:
    return json.dumps({"dest_type": dest_type, f"{dest_type.lower()}_code": code})
