"""Every drawing of the console can be read by everybody: with a keyboard, zoomed, on paper, in the user's own colours."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Page

from sandbox.domain.clock import parse
from sandbox.server.console.endpoint_charts import SLOTS, charts, slots
from tests.harness.browser import Browsing, check_accessibility, check_width, screenshot
from tests.harness.console import ConsoleClient
from tests.harness.receiver import Received, Receiver
from tests.harness.world import Stack, World

ZOOMED = 1280 // 2
"""The width in CSS pixels of a window of 1280 at 200 % zoom."""
PAPER = 718
"""The width of a sheet of A4 without its margins."""


def _advanced(page: Page) -> None:
    page.locator("#form-run-86400 button").first.click()
    page.locator("#ran-trace").wait_for()


DRAWINGS: dict[str, tuple[str, str, Callable[[Page], None] | None]] = {
    "payout": ("/payouts/{payout}", ".trace", None),
    "payouts": ("/payouts?drawn=yes", ".trace", None),
    "failures": ("/payouts/failures", ".heat", None),
    "flow": ("/ledger/flow", ".flow-chart", None),
    "endpoint": ("/webhooks/{endpoint}", ".trace, .small-chart svg", None),
    "due": ("/world", ".trace", None),
    "ran": ("/world", "#ran-trace .trace, #ran-money .flow-chart", _advanced),
    "user": ("/users/{user}", ".trace", None),
}
"""Name → the page, its drawings, and what to do first."""


@pytest.fixture(scope="module")
def drawn(stack: Stack) -> Iterator[tuple[World, dict[str, str]]]:
    """Yield a merchant with something in each drawing, and the ids in the paths."""

    def respond(request: Received) -> tuple[int, dict[str, str], bytes]:
        return (503, {}, b"down") if b"payout.processing" in request.body else (200, {}, b"ok")

    with World.create(stack, opening_balance="900000.00", frozen_at="2031-01-01T10:00:00Z") as world, Receiver() as receiver:
        receiver.respond = respond
        endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()["id"]
        where = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
        user = world.post("/api/v1/users", {"name": "Ayesha", "destination": where}).json()["id"]
        world.post(f"/api/v1/users/{user}/transactions", {"type": "EARNED", "amount": "500.00"})
        world.post(f"/api/v1/users/{user}/payout", {"amount": "5.00"})
        payout = ""
        for _ in range(2):
            for suffix in ("0001", "0003", "0007", "0012") * 3:
                payout = world.create_payout(suffix)["id"]
            world.post("/sandbox/v1/clock/advance", {"seconds": 86_400})
        world.create_payout("0012")
        world.post("/sandbox/v1/drain")
        yield world, {"payout": payout, "endpoint": endpoint, "user": user}


def _lost(page: Page, drawing: str) -> list[str]:
    """Return what lies outside of its drawing, or outside of the room that can be scrolled to."""
    found: list[str] = page.evaluate(
        """(selector) => [...document.querySelectorAll(selector)].flatMap((drawing) => {
            const whole = drawing.getBoundingClientRect(), holder = drawing.parentElement;
            const place = holder.getBoundingClientRect();
            const canScroll = getComputedStyle(holder).overflowX !== "visible";
            const right = canScroll ? whole.right : Math.min(whole.right, document.documentElement.clientWidth);
            return [...drawing.querySelectorAll("a")].filter((mark) => {
                const box = mark.getBoundingClientRect();
                return !box.width || box.left < place.left - 2 || box.right > right + 2 || box.bottom > whole.bottom + 2;
            }).map((mark) => mark.textContent);
        })""",
        drawing,
    )
    return found


def _reached(page: Page, drawing: str) -> set[str]:
    """Press Tab through the whole page, and return the marks of the drawings that got the focus."""
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    found: set[str] = set()
    for _ in range(page.locator("a, button, input, select, textarea, summary, [tabindex]").count()):
        page.keyboard.press("Tab")
        text = page.evaluate(
            "(s) => document.activeElement.closest(s) ? document.activeElement.outerHTML : ''",
            ", ".join(f"{part} a" for part in drawing.split(", ")),
        )
        found |= {text} if text else set()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_of_a_drawing_is_lost_for_anybody(drawn: tuple[World, dict[str, str]], browsing: Browsing, name: str) -> None:
    world, ids = drawn
    path, drawing, prepare = DRAWINGS[name]
    page = browsing.open(f"/console{path.format(**ids)}", world.api_key)
    if prepare is not None:
        prepare(page)
    marks = page.locator(", ".join(f"{part} a" for part in drawing.split(", ")))
    assert marks.count() > 0
    for width in (1440, ZOOMED, 390):
        page.set_viewport_size({"width": width, "height": 900})
        check_accessibility(
            page, "target-size", "svg-img-alt", "link-name", "nested-interactive", "scrollable-region-focusable"
        )
        check_width(page)
        assert _lost(page, drawing) == [], width
    page.set_viewport_size({"width": 1280, "height": 900})
    assert len(_reached(page, drawing)) == len({mark.evaluate("(mark) => mark.outerHTML") for mark in marks.all()})
    assert page.evaluate("document.getAnimations().length") == 0
    page.emulate_media(forced_colors="active")
    assert not marks.first.evaluate("(mark) => getComputedStyle(mark).display === 'none'")
    check_accessibility(page)
    screenshot(page, f"drawing-{name}-forced")
    page.emulate_media(forced_colors="none", media="print")
    page.set_viewport_size({"width": PAPER, "height": 1000})
    assert _lost(page, drawing) == []
    screenshot(page, f"drawing-{name}-print")


@pytest.mark.parametrize("name", ["payout", "payouts", "endpoint", "user", "due"])
def test_a_drawing_can_be_taken_away_as_a_file_that_needs_nothing_else(drawn: tuple[World, dict[str, str]], name: str) -> None:
    world, ids = drawn
    with ConsoleClient(world.stack.api_url) as client:
        client.sign_in(world.api_key)
        page = client.get(f"/console{DRAWINGS[name][0].format(**ids)}")
        (link,) = re.findall(r'href="([^"]+)" download data-no-live>Download the drawing', page.text)
        file = client.http.get(unescape(link))
    assert (file.status_code, file.headers["content-type"]) == (200, "image/svg+xml")
    assert file.headers["content-disposition"].endswith('.svg"')
    root = ElementTree.fromstring(file.text)  # noqa: S314 -- the sandbox wrote it
    assert "--chart-3" in file.text
    assert {link.get("href", "")[:4] for link in root.iter("{http://www.w3.org/2000/svg}a")} <= {"http", "#cha", "#nex"}


def test_the_charts_of_an_endpoint_count_each_attempt_once_and_say_how_late_it_arrived() -> None:
    def attempt(at: str, error: str | None, *, manual: bool = False) -> dict[str, object]:
        return {"at": at, "error_class": error, "manual": manual, "duration_ms": 10, "status": 503 if error else 200}

    failing = {"id": "a", "created_at": "2031-01-01T00:00:00.000Z", "attempts": [
        attempt("2031-01-01T00:00:00.000Z", "HTTP_STATUS"), attempt("2031-01-01T01:00:00.000Z", None),
    ]}  # fmt: skip
    resent = {"id": "b", "created_at": "2031-01-01T00:00:00.000Z", "attempts": [
        attempt("2031-01-01T00:00:00.400Z", None), attempt("2031-01-01T12:00:00.000Z", None, manual=True),
    ]}  # fmt: skip
    found = slots([resent, failing])
    assert [(slot.place, slot.succeeded, slot.failed, slot.late) for slot in found] == [
        (0, 1, 1, 0.4), (1, 1, 0, 3600.0), (SLOTS - 1, 1, 0, None),
    ]  # fmt: skip
    assert parse(found[1].at) - parse(found[0].at) == (parse("2031-01-01T12:00:00Z") - parse("2031-01-01T00:00:00Z")) / SLOTS
    success, latency, lateness = charts(found)
    assert (success.summary, lateness.summary) == ("3 of 4 attempts", "what arrived: at most 1 h after the event")
    assert success.bars[0].href == "/webhooks/deliveries/a"
    assert [len(chart.bars) for chart in (success, latency, lateness)] == [3, 3, 2]
    refused = {**failing, "attempts": [{**attempt("2031-01-01T00:00:00.000Z", "CONNECTION"), "status": None}]}
    success, latency, lateness = charts(slots([refused]))
    assert (success.summary, latency.summary, lateness.summary) == ("0 of 1 attempts", "no answer yet", "nothing has arrived")
    assert [len(chart.bars) for chart in (success, latency, lateness)] == [1, 0, 0]
    assert (slots([]), len(slots([{**failing, "attempts": failing["attempts"][:1]}]))) == ([], 1)  # type: ignore[index]  # a list
