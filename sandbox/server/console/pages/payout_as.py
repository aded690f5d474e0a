"""A payout as a dialect shows it, beside the native one."""

from sandbox.domain.errors import Problem
from sandbox.http.responses import Response
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()


@pages.page("/payouts/{payout_id}/as/{dialect}")
async def payout_as(view: View) -> Response:
    """Show what an integration of the dialect's provider gets, and the payout that it is."""
    payout_id, dialect = view.path_parameters["payout_id"], view.kit.dialects.get(view.path_parameters["dialect"])
    if dialect is None or dialect.payment is None:
        raise Problem("NOT_FOUND", "There is no such dialect.")
    found = await view.call("get_payout", path={"payout_id": payout_id})
    operation, path = dialect.payment(view.merchant_id, payout_id)
    # The commands are those of the native API, which a dialect's operations have none of.
    shown = await view.call(f"{dialect.name}_{operation}", path=path, shown=False)
    return await view.render("payout_as.html", payout=found, dialect=dialect, shown=shown)
