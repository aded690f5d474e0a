"""The operator's page with all merchants."""

from typing import Final

from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column
from sandbox.server.console.paths import MERCHANTS
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
COLUMNS: Final = (
    Column("name", "Name"),
    Column("merchant_id", "Id", "id"),
    Column("seed", "Seed", "number"),
    Column("created_at", "Created", "time"),
)


@pages.page(MERCHANTS, "operator")
async def merchants(view: View) -> Response:
    """List, create, enter and delete merchants."""
    table = await view.table("merchants", "Merchants, newest first", COLUMNS, "list_merchants")
    return await view.render("merchants.html", tables=[table])
