"""Payouts that wait for an admin's decision."""

import asyncio
from typing import Final

from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column
from sandbox.server.console.pages.users import TO_USER, account
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
_WAITING: Final = (
    Column("merchant_reference", "Reference", "id", link="/payouts/{id}"),
    Column("amount", "Amount", "money"),
    Column("status", "Status", "status"),
    Column("user_id", "User", "id", link=TO_USER),
    Column("account", "Destination", "code", value=account),
    Column("created_at", "Created", "time"),
)
_TOTALS: Final = (
    Column("user_id", "User", "id", link=TO_USER),
    Column("total_requested", "Requested", "money"),
)


@pages.page("/users/approvals")
async def approvals(view: View) -> Response:
    """List payouts that wait for approval, and what each user has requested."""
    status = view.query.get("status") or "REQUESTED,IN_REVIEW"
    tables = await asyncio.gather(
        view.table(
            "waiting", "Waiting for a decision, newest first", _WAITING, "list_payouts", query={"status": status},
            empty="Nothing waits for approval. A user's payout request appears here, and so does a payout that is created with "
            "requires_approval or that ends in review.",
        ),
        view.table(
            "requested", "Requested by user", _TOTALS, "list_payout_requests",
            empty="No user has requested a payout that still waits.",
        ),
    )  # fmt: skip
    return await view.render("approvals.html", tables=tables)
