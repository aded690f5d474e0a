"""The first page of a merchant."""

from sandbox.console.routing import Pages
from sandbox.console.view import View
from sandbox.http.responses import Response

pages = Pages()


@pages.page("/console")
async def overview(view: View) -> Response:
    """Show the balance."""
    balance = await view.call("get_balance")
    return await view.render("overview.html", balance=balance)
