"""The console in a browser: signing in, keys, live updates; and the tests' own watch over pages."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.harness.browser import Browsing, check_accessibility, check_page
from tests.harness.loopback import LoopbackServer, QuietHandler
from tests.harness.waiting import until
from tests.harness.world import World

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_LOST = "/lost"
"""The server closes the connection without a response."""
_STATUSES = {"/fails": 500, "/missing": 404}
_POLICIES = {"/inline": "style-src 'self'", "/good": "default-src 'none'; script-src 'self'; img-src data:"}
_PAGES = {
    "/error": "<script>console.error('broken')</script>",
    "/throws": "<script>throw new Error('broken')</script>",
    "/inline": '<p style="color: red">not allowed by the policy</p>',
    "/outside": '<img src="http://127.0.0.1:9/picture" alt="">',
    "/socket": "<script>new WebSocket('ws://127.0.0.1:9/socket')</script>",
    "/loses": '<img src="/lost" alt="">',
    "/opens": '<a href="/error" target="_blank">Open</a>',
    "/unlabelled": "<input><button></button>",
    "/good": "<h1>Good</h1>",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Yield the URL of a server of tiny pages."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            if self.path == _LOST:
                return
            self.send_response(_STATUSES.get(self.path, 200))
            self.send_header("content-type", "text/html")
            self.send_header("content-security-policy", _POLICIES.get(self.path, ""))
            self.end_headers()
            head = '<!doctype html><html lang="en"><title>T</title><link rel="icon" href="data:,"><main>'
            self.wfile.write(f"{head}{_PAGES.get(self.path, '')}</main></html>".encode())

    with LoopbackServer(Handler) as found:
        yield found.url


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/error", "error in the console: broken"),
        ("/throws", "error in a script: broken"),
        ("/inline", "error in the console: Applying inline style violates"),
        ("/outside", "a request to http://127.0.0.1:9/picture"),
        ("/socket", "a request to ws://127.0.0.1:9/socket"),
        ("/loses", "net::ERR_EMPTY_RESPONSE"),
        ("/missing", "status 404"),
        ("/fails", "status 500"),
    ],
)
def test_the_watch_fails_a_test_whose_page_misbehaves(chromium: "Browser", server: str, path: str, what: str) -> None:
    browsing = Browsing(chromium, server)
    page = browsing.open(path)
    page.wait_for_load_state("load")
    # The browser reports a WebSocket, a lost connection or an error a moment later. Each call of the page receives reports.
    until(lambda: page.evaluate("true") and browsing.found)
    with pytest.raises(AssertionError, match=re.escape(what)):
        browsing.close()


def test_the_watch_covers_pages_that_a_page_opens(chromium: "Browser", server: str) -> None:
    browsing = Browsing(chromium, server)
    page = browsing.open("/opens")
    with page.expect_popup() as opened:
        page.get_by_text("Open").click()
    opened.value.wait_for_load_state("load")
    with pytest.raises(AssertionError, match="broken"):
        browsing.close()


def test_the_accessibility_check_finds_a_violation(chromium: "Browser", server: str) -> None:
    browsing = Browsing(chromium, server)
    with pytest.raises(AssertionError, match="button-name"):
        check_accessibility(browsing.open("/unlabelled"))
    check_accessibility(browsing.open("/good"))
    browsing.close()


def test_signing_in_and_out_by_keyboard(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console")
    assert page.url.endswith("/console/sign-in")
    check_accessibility(page)
    page.keyboard.type(world.api_key)  # the field has the focus
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/m/*")
    assert world.api_key not in page.content()
    page.get_by_text("Account", exact=True).click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.wait_for_url("**/console/sign-in")
    page.go_back()
    assert page.locator("#balance").count() == 0, "the page is shown from a cache after signing out"


def test_keys_go_to_pages_and_list_themselves(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console", world.api_key)
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    check_accessibility(page)
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("p")
    page.wait_for_url("**/console/m/*/payouts")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"


def test_a_payout_created_through_the_api_appears_without_reloading(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/payouts", world.api_key)
    page.evaluate("window.isSamePage = true")
    page.locator("body[data-listening]").wait_for()
    created = world.post("/api/v1/payouts", world.payout_body("0001")).json()
    row = page.get_by_role("row").filter(has_text=created["merchant_reference"])
    row.get_by_text("SUCCESS", exact=True).wait_for()
    assert page.evaluate("window.isSamePage")


def test_a_region_in_use_stays_and_shows_the_newest_once_it_is_free(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console", world.api_key)
    page.locator("body[data-listening]").wait_for()
    section = page.locator("#status-chart")
    section.get_by_text("As a table").click()
    world.create_payout("0001")
    page.wait_for_function("() => waiting.has('status-chart')")
    section.locator("details[open]").wait_for()
    section.get_by_text("As a table").click()
    section.locator(".bars").get_by_text("SUCCESS", exact=True).wait_for()


def test_screen_readers_hear_of_new_rows_together_and_later(world: World, browsing: Browsing) -> None:
    for _ in range(2):
        world.create_payout("0004")
    page = browsing.open("/console/payouts", world.api_key)
    page.locator("body[data-listening]").wait_for()
    heard = page.evaluate_handle(
        "() => { const heard = []; new MutationObserver(() => heard.push(document.getElementById('news').textContent))"
        ".observe(document.getElementById('news'), { childList: true }); return heard; }"
    )
    for _ in range(3):
        created = world.create_payout("0004")
        page.get_by_role("row").filter(has_text=created["merchant_reference"]).wait_for()
    page.wait_for_function("heard => heard.length > 0", arg=heard)
    assert re.fullmatch(r"[1-9]\d* new or changed rows?", heard.evaluate("heard => heard[0]"))
    assert len(heard.evaluate("heard => heard")) < 3
    assert page.locator("main [aria-live], main [role=log]").count() == 0, "nothing else is read out"


def test_the_tail_shows_what_happens_on_every_page_while_it_is_open(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/world/settings", world.api_key)
    page.keyboard.press("t")
    created = world.create_payout("0001")
    page.locator("#tail").get_by_text("payout.succeeded").wait_for()
    check_accessibility(page)
    page.get_by_role("link", name="Catalogue").click()
    page.locator("#tail").get_by_role("link", name=created["merchant_reference"]).first.click()
    page.wait_for_url(f"**/payouts/{created['id']}")


def test_without_scripts_links_and_forms_do_everything(world: World, browsing: Browsing) -> None:
    page = browsing.open("/console/sign-in", scripts=False)
    page.get_by_label("API key").fill(world.api_key)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("link", name="Payouts", exact=True).click()
    page.get_by_role("link", name="New payout").click()
    page.get_by_role("button", name="Create payout", exact=True).click()
    page.get_by_role("status").wait_for()
    reference = page.get_by_role("heading", level=1).inner_text()
    page.get_by_label("Search everything").fill(reference)
    page.get_by_label("Search everything").press("Enter")
    page.locator("main").get_by_role("link", name=reference).first.wait_for()
    page.locator("#tail-box summary").click()
    page.get_by_role("link", name="What happened last").click()
    page.locator("#tail").get_by_role("link", name="payout.created").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/console/sign-in", "/console/merchants", "/console/no-such-page"])
def test_pages_outside_of_a_merchant(world: World, browsing: Browsing, path: str) -> None:
    browsing.expected_statuses = {404}
    check_page(browsing, path, world.stack.admin_key, path.rpartition("/")[2])
