"""The console's first page: what the merchant has, what happens, and nothing broken while there is nothing."""

from tests.harness.browser import Browsing, check_page, check_width
from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World


def test_an_empty_merchant_has_an_overview(stack: Stack, browsing: Browsing) -> None:
    with World.create(stack) as empty:
        page = browsing.open("/console", empty.api_key)
        page.get_by_text("No payouts yet.").wait_for()
        check_width(page)
        assert page.get_by_role("link", name="Create the first one.").get_attribute("href") == f"{empty.console}/payouts/new"


def test_the_overview_changes_live(world: World, receiver: Receiver, browsing: Browsing) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    page = browsing.open("/console", world.api_key)
    page.locator("body[data-listening]").wait_for()
    world.create_payout("0007", amount="1500.00")
    page.locator("#table-failures").get_by_text("ACCOUNT_CLOSED").wait_for()
    page.locator("#table-events").get_by_text("payout.failed").wait_for()
    page.locator("#attempt-chart").get_by_text("Succeeded 3").wait_for()
    check_page(browsing, "/console", world.api_key, "overview")
