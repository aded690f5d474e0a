"""The sign-in page. A visitor enters a key, or chooses one of the merchants that the browser is signed in to."""

from sandbox.http.responses import Response
from sandbox.server.console.paths import HOME, SIGN_IN, landing, merchant_in
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()


@pages.page(SIGN_IN, "anyone")
async def sign_in(view: View) -> Response:
    """Ask for a key; on loopback, offer the demo merchants. The query's `next` is the page to open then."""
    wanted = view.query.get("next", HOME)
    of_merchant = merchant_in(wanted)
    known = {visitor.session.merchant_id for visitor in view.others}
    return await view.render(
        "sign_in.html",
        next=wanted,
        wanted=of_merchant if of_merchant not in known else "",
        signed_in=[
            {
                "name": visitor.merchant_name or "All merchants",
                "merchant_id": visitor.session.merchant_id,
                "role": visitor.session.role or "operator",
                "href": landing(visitor.session, wanted),
            }
            for visitor in view.others
        ],
    )
