"""Every page of the console, with real and with hostile data: nothing breaks, nothing runs, nothing is missing for anybody."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from sandbox.server.console.page_parts import parts_of
from sandbox.server.console.pages import PAGES
from tests.harness.browser import WIDTHS, Browsing, check_page
from tests.harness.console import ConsoleClient
from tests.harness.console_world import fill
from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World

PATHS = [f"/console{page.path}" for page in PAGES if page.audience == "merchant" and not page.path.endswith("/junit")]
"""Every page of a merchant, without the download of a report."""
STATES = ["/console/ledger/audit?run=now", "/console/world/faults/new?kind=latency"]
"""Pages that show more with a query."""


@pytest.fixture(scope="module")
def filled(stack: Stack) -> Iterator[tuple[World, dict[str, str]]]:
    """Yield a merchant that has something on every page, and its ids by name of the path parameter."""
    with World.create(stack, opening_balance="1000000.00") as world, Receiver() as receiver:
        yield world, fill(world, receiver)


def path_of(page: str, ids: dict[str, str]) -> str:
    return page.format(**ids)


def test_hostile_text_stays_text_on_every_page(filled: tuple[World, dict[str, str]], browsing: Browsing) -> None:
    """A script that ran would set `pwned` or be reported by the Content-Security-Policy, which fails the test."""
    world, ids = filled
    opened = browsing.open("/console", world.api_key)
    for page in (*PATHS, *STATES):
        opened.goto(path_of(page, ids))
        assert opened.evaluate("typeof pwned") == "undefined", page
        assert opened.locator("h1").count() == 1, page


@pytest.mark.slow
@pytest.mark.parametrize("page", [*PATHS, *STATES])
def test_every_page_is_accessible_at_both_widths_and_in_both_themes(
    filled: tuple[World, dict[str, str]], browsing: Browsing, page: str
) -> None:
    world, ids = filled
    name = re.sub(r"\W+", "-", page.removeprefix("/console")).strip("-") or "overview"
    check_page(browsing, path_of(page, ids), world.api_key, f"page-{name}")


def test_a_member_can_open_every_page(filled: tuple[World, dict[str, str]]) -> None:
    world, ids = filled
    key = world.post("/sandbox/v1/keys", {"role": "member", "name": "qa"}).json()["api_key"]
    with ConsoleClient(world.stack.api_url) as client:
        client.sign_in(key)
        assert {page: status for page in PATHS if (status := client.get(path_of(page, ids)).status_code) != 200} == {}


class Outermost(HTMLParser):
    """Finds the outermost regions of a page, to compare with: their ids, and how many elements each has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self._open: list[str] = []
        self._region, self._depth = "", 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._region and "data-region" in dict(attrs):
            self._region, self._depth = dict(attrs)["id"] or "", len(self._open)
        if self._region:
            self.found[self._region] = self.found.get(self._region, 0) + 1
        if tag not in ("input", "br", "hr", "img", "meta", "link", "use", "rect", "line", "circle", "path", "polyline"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._region:
            self.found[self._region] = self.found.get(self._region, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if len(self._open) <= self._depth:
            self._region = ""


def test_regions_of_every_page_are_found_whole(filled: tuple[World, dict[str, str]]) -> None:
    world, ids = filled
    with ConsoleClient(world.stack.api_url) as client:
        client.sign_in(world.api_key)
        for page in (*PATHS, *STATES):
            html = client.get(path_of(page, ids)).text
            regions = parts_of(html).regions
            counts = {name: sum(Outermost(region.html).found.values()) for name, region in regions.items()}
            assert counts == Outermost(html).found, page


def test_another_merchants_ids_show_nothing(filled: tuple[World, dict[str, str]], stack: Stack) -> None:
    _, ids = filled
    with World.create(stack) as other, ConsoleClient(stack.api_url) as client:
        client.sign_in(other.api_key)
        for page in PATHS:
            response = client.get(path_of(page, ids))
            assert response.status_code == (404 if "{" in page else 200), page
            assert "pwned=1" not in response.text, page


def test_malformed_ids_and_queries_are_explained(filled: tuple[World, dict[str, str]]) -> None:
    world, ids = filled
    with ConsoleClient(world.stack.api_url) as client:
        client.sign_in(world.api_key)
        for page in PATHS:
            for bad in ("x", "%00", "..%2f..", "%ff", "00000000-0000-7000-8000-000000000000"):
                if "{" in page:
                    response = client.http.get(path_of(page, dict.fromkeys(ids, bad)))
                    assert response.status_code in (400, 404), (page, bad, response.status_code)
            for query in ("?q=%00", "?cursor=x", "?status=NOPE", "?csv=nope", "?created_from=never", "?limit=9999"):
                response = client.http.get(path_of(page, ids) + query)
                assert response.status_code in (200, 400, 404), (page, query, response.status_code)
                assert "text/html" in response.headers["content-type"]


def test_on_a_phone_filters_fold_and_tabs_scroll(world: World, browsing: Browsing) -> None:
    world.create_payout("0003")
    page = browsing.open("/console/payouts", world.api_key)
    page.set_viewport_size({"width": WIDTHS["narrow"], "height": 900})
    assert page.get_by_label("Search", exact=True).is_visible()
    assert not page.get_by_label("FAILED").is_visible()
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("FAILED").check()
    page.wait_for_url("**/payouts?status=FAILED")
    page.set_viewport_size({"width": WIDTHS["wide"], "height": 900})
    assert not page.get_by_text("Filters", exact=True).is_visible()
    page.set_viewport_size({"width": WIDTHS["narrow"], "height": 900})
    page.goto("/console/users/aggregator")
    assert not page.get_by_text("Filters", exact=True).is_visible(), "a search alone does not fold"
    tab = page.locator(".tabs [aria-current]").bounding_box()
    assert tab is not None
    assert tab["x"] + tab["width"] <= WIDTHS["narrow"], "the current tab is in view"
