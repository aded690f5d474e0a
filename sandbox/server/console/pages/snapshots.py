"""Snapshots of the merchant's world, reset, and more balance."""

from typing import Final

from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
COLUMNS: Final = (
    Column("name", "Name"),
    Column("clock_at", "Merchant's time", "time"),
    Column("size", "Content", value=lambda row: f"{row['rows']:,} rows, {_size(row['size'])}"),
    Column("created_at", "Taken (host's time)", "time"),
    Column("id", "Id", "id"),
)


@pages.page("/world/snapshots")
async def snapshots(view: View) -> Response:
    """List snapshots, with forms to take, restore and delete them, to reset the world, and to top up the balance."""
    table = await view.table(
        "snapshots",
        "Snapshots, newest first",
        COLUMNS,
        "list_snapshots",
        empty="No snapshot yet. Take one before you try something.",
    )
    balance = await view.call_if_found("get_balance")
    return await view.render("snapshots.html", tables=[table], balance=balance)


def _size(count: int) -> str:
    """Return a size in bytes as text, such as `12 KB`."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.0f} KB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"
