"""The tail: what happened last. The header of every page shows it while it is open."""

from typing import Final

from sandbox.http.responses import Response
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
_LENGTH: Final = 8


@pages.page("/tail")
async def tail(view: View) -> Response:
    """Show the newest events."""
    found = await view.call("list_events", query={"limit": str(_LENGTH)})
    return await view.render("tail.html", events=found["data"])
