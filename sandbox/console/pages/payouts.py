"""Payouts: the list, one payout, a new one."""

from typing import Final

from sandbox.console.data_table import Column
from sandbox.console.routing import Pages
from sandbox.console.view import View
from sandbox.http.responses import Response

pages = Pages()
COLUMNS: Final = (
    Column("merchant_reference", "Reference", link="/console/payouts/{id}"),
    Column("amount", "Amount", "money"),
    Column("status", "Status", "status"),
    Column("failure_code", "Failure", "code", link="/console/catalogue"),
    Column("account_number", "Account", "code"),
    Column("scenario", "Scenario", link="/console/catalogue"),
    Column("created_at", "Created", "time"),
    Column("id", "Id", "id", link="/console/payouts/{id}"),
)


@pages.page("/console/payouts")
async def payouts(view: View) -> Response:
    """List payouts, newest first, with filters in the URL."""
    query = view.given("status", "dest_type", "merchant_reference", "user_id", "created_from", "created_to")
    table = await view.table("payouts", "Payouts, newest first", COLUMNS, "list_payouts", query=query)
    return await view.render("payouts.html", tables=[table])
