"""Sales: the list, runs and reconciliation, and one sale with its payments."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.pages.users import TO_USER
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
_TO_SALE: Final = "/users/sales/{id}"
_USERS: Final = 100
"""The number of newest users that a new sale's form offers."""
_SALES: Final = (
    Column("brand", "Brand", link=_TO_SALE),
    Column("earning", "Earning", "money"),
    Column("status", "Status", "status"),
    Column("advance_amount", "Advance", "money"),
    Column("final_amount", "Final", "money"),
    Column("last_error", "Last error", "code"),
    Column("user_id", "User", "id", link=TO_USER),
    Column("created_at", "Created", "time"),
    Column("id", "Id", is_csv_only=True),
)
_PAYMENTS: Final = (
    Column("kind", "Payment"),
    Column("amount", "Amount", "money"),
    Column("created_at", "Paid", "time"),
    Column("transfer_id", "Transfer", "id"),
)


@pages.page("/users/sales")
async def sales(view: View) -> Response:
    """List sales; record, pay and reconcile them."""
    query = view.given("status", "user_id", "created_from", "created_to")
    table, users = await asyncio.gather(
        view.table(
            "sales", "Sales, newest first", _SALES, "list_sales", query=query,
            empty="No sale matches." if query else "No sales yet. Record the first one above: press n.",
            prepare=_with_decisions,
        ),
        view.call("list_users", query={"limit": str(_USERS)}, shown=False),
    )  # fmt: skip
    return await view.render(
        "sales.html",
        tables=[table],
        users=users["data"],
        users_to_choose=_choices(users["data"], view.query.get("user_id")),
        can_reconcile=any(row["status"] == "PENDING" for row in table.rows),
    )


def _choices(users: Sequence[Mapping[str, Any]], chosen: str | None) -> list[tuple[str, str]]:
    """Return users as choices of a filter. The chosen one is always among them."""
    names = {user["id"]: user["name"] for user in users}
    if chosen:
        names.setdefault(chosen, chosen)
    return list(names.items())


def _with_decisions(sale: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a sale with each possible item of a request that reconciles it, as JSON."""
    items = {status: json.dumps({"sale_id": sale["id"], "status": status}) for status in ("APPROVED", "DECLINED")}
    return {**sale, "decisions": items}


@pages.page("/users/sales/{sale_id}")
async def sale(view: View) -> Response:
    """Show a sale and its payments."""
    found = await view.call("get_sale", path={"sale_id": view.path_parameters["sale_id"]})
    user, balance = await asyncio.gather(
        view.call("get_user", path={"user_id": found["user_id"]}, shown=False), view.call("get_balance", shown=False)
    )
    payments = Table(
        "payments", "Payments", _PAYMENTS, found["payments"], "Nothing is paid yet: the next run pays what is due."
    )
    return await view.render("sale.html", tables=[payments], sale=found, user=user, currency=balance["currency"])
