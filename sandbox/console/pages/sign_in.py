"""The page on which a key is entered."""

from sandbox.console.routing import Pages
from sandbox.console.view import View
from sandbox.http.responses import Response

pages = Pages()


@pages.page("/console/sign-in", "anyone")
async def sign_in(view: View) -> Response:
    """Ask for a key; on loopback, offer the demo merchants."""
    return await view.render("sign_in.html")
