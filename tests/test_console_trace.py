"""The drawing of a payout: what is drawn stays apart, inside and in order, and each mark can be reached and followed."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.domain.clock import parse, render
from sandbox.server.console.endpoint_trace import endpoint_trace, health, last_failure
from sandbox.server.console.payout_trace import Known, in_merchants_time, payout_trace, payouts_trace
from sandbox.server.console.rendering import create_templates
from sandbox.server.console.trace import LEFT, SPACE, WIDTH, Bar, Lane, Mark, Trace, draw, in_words
from tests.harness.browser import WIDTHS, Browsing, check_accessibility, check_width
from tests.harness.console import ConsoleClient
from tests.harness.receiver import Receiver
from tests.harness.world import World

LANES = (Lane("a", "A", "calls", has_labels=True), Lane("b", "B", "calls"))
START = datetime(2026, 1, 31, tzinfo=UTC)
MAX_SIZE = 60_000


def at(seconds: float) -> str:
    return render(START + timedelta(seconds=seconds))


def mark(seconds: float, lane: str = "a", **fields: Any) -> Mark:
    return Mark(lane, at(seconds), f"at {seconds}", "/x", **fields)


def drawing(*marks: Mark, now: float = 0) -> Trace:
    return draw(LANES, marks, [], at(now))


MARKS = st.lists(
    st.builds(
        mark,
        st.sampled_from([0, 0.001, 1, 5, 3600, 86_400, 7 * 86_400]) | st.integers(0, 10**7),
        st.sampled_from("ab"),
        label=st.sampled_from(["", "FAILED", "PARTIALLY_COMPLETED"]),
        order=st.integers(0, 3),
    ),
    max_size=80,
)


@given(MARKS)
def test_marks_are_inside_apart_and_in_order(marks: Sequence[Mark]) -> None:
    found = drawing(*marks, now=10**7)
    assert sum(one.count for one in found.marks) == len(marks)
    for lane in found.lanes:
        xs = [one.x for one in found.marks if lane.y <= one.y < lane.y + lane.height]
        assert all(LEFT <= x <= WIDTH for x in xs)
        assert all(after - before >= SPACE - 1 for before, after in pairwise(xs))
    assert all(LEFT <= time.x <= WIDTH for time in found.times)
    assert LEFT <= found.now <= found.length <= WIDTH


def test_seconds_and_days_can_both_be_read() -> None:
    found = drawing(mark(0), mark(5), mark(5 + 86_400), now=5 + 86_400)
    first, second, third, *_ = [one.x for one in found.marks]
    assert SPACE <= second - first < third - second < 5 * (second - first)
    assert [gap.text for gap in found.gaps] == ["5 s", "1 d"]


def test_what_happened_at_the_same_moment_is_drawn_in_its_order() -> None:
    found = drawing(mark(0, order=1, label="SECOND"), mark(0, label="FIRST"), mark(0, "b", order=1))
    assert [(one.label, one.count) for one in found.marks] == [("FIRST", 1), ("SECOND", 1), ("", 1)]
    assert found.marks[1].x == found.marks[2].x


def test_close_marks_are_one_mark_that_shows_a_failure() -> None:
    marks = [mark(number, tone="bad" if number == 7 else "good") for number in range(300)]
    found = drawing(*marks, now=300).marks
    assert sum(one.count for one in found) == 300
    assert [one.tone for one in found].count("bad") == 1
    crowded = next(one for one in found if one.tone == "bad")
    assert "1 of them failed" in crowded.text


def test_what_is_due_is_after_now_and_hollow() -> None:
    found = drawing(mark(0), mark(60, is_due=True), now=10)
    past, due = found.marks
    assert (past.is_due, due.is_due) == (False, True)
    assert past.x < found.now < due.x
    assert [time.date for time in found.times] == ["2026-01-31", "now", ""]
    near = drawing(mark(0), mark(86_400), now=86_405)
    assert [time.date for time in near.times] == ["2026-01-31", "2026-02-01", "now"], "now has no date to be covered"


def test_the_time_of_what_is_due_next_can_be_read_in_a_crowd() -> None:
    marks = [mark(90 * number) for number in range(300)]
    found = drawing(*marks, mark(90_000, is_due=True), now=90 * 300)
    assert found.times[-1].time == at(90_000)[11:19]


@given(MARKS)
def test_labels_do_not_cover_each_other(marks: Sequence[Mark]) -> None:
    found = drawing(*marks, now=10**7)
    for lane in found.lanes:
        labelled = [one for one in found.marks if one.label and lane.y <= one.y < lane.y + lane.height]
        assert all(before.x + len(before.label) * 6 <= after.x for before, after in pairwise(labelled))
    assert all(after.x - before.x >= 62.9 for before, after in pairwise(found.times)), "a time is 57 wide"
    dated = [time for time in found.times if time.date not in ("", "now")]
    assert all(after.x - before.x >= 75.9 for before, after in pairwise(dated)), "a date is 72 wide"


@given(MARKS)
def test_a_gap_is_the_time_between_the_labels_around_it(marks: Sequence[Mark]) -> None:
    found = drawing(*marks, now=10**7)
    for gap in found.gaps:
        before = max((time for time in found.times if time.x < gap.x), key=lambda time: time.x)
        after = min((time for time in found.times if time.x > gap.x), key=lambda time: time.x)
        assert after.x - before.x >= 6 * len(gap.text)
        shown = (parse(f"2026-01-31T{after.time}Z") - parse(f"2026-01-31T{before.time}Z")).seconds
        assert "d" in gap.text or gap.text == in_words(shown)


def test_a_gap_agrees_with_the_shown_times() -> None:
    found = drawing(mark(0.9), mark(5.1), mark(5.1 + 86_400), now=5.1 + 86_400)
    assert [(time.time, gap.text) for time, gap in zip(found.times, found.gaps, strict=False)] == [
        ("00:00:00", "5 s"), ("00:00:05", "1 d"),
    ]  # fmt: skip


def test_a_bar_lasts_until_now() -> None:
    (bar,) = draw(LANES, [mark(0)], [Bar("b", (at(0), 0), None, label="1,500.00")], at(60)).bars
    assert (bar.x, bar.label) == (draw(LANES, [mark(0)], [], at(60)).marks[0].x, "")
    assert bar.width > SPACE


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (45, "45 s"), (125, "2 min 5 s"), (10_800, "3 h"), (187_200, "2 d 4 h")]
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


# ------------------------------------------------------------------------------------------------ of a payout


def known(changes: int = 3, attempts: int = 0, status: str = "FAILED") -> Known:
    """Return a payout with so many changes, and so many failed attempts at two endpoints."""
    endpoints = {f"e{number}": {"url": f"https://shop.example/{number}"} for number in range(2)}
    per_delivery = attempts // (changes * len(endpoints))
    rows = [
        {
            "at": at(37 * number),
            "from": None if number == 0 else ("FAILED", "PENDING")[number % 2],
            "to": ("PENDING", "FAILED")[number % 2],
            "cause": "api",
            "caused_by": "a request",
            "request_id": f"r{number}",
            "ledger_transfer_id": f"t{number}",
            "event_id": f"v{number}",
            "event_type": "payout.failed",
            "entries": [],
            "deliveries": [_delivery(number, endpoint, per_delivery) for endpoint in endpoints] if attempts else [],
        }
        for number in range(changes)
    ]
    payout = {"amount": "1500.00", "status": status, "failure_code": "ACCOUNT_CLOSED"}
    requests = [
        {"id": f"j{n}", "request_id": f"r{n}", "at": at(n), "method": "POST", "path": "/api/v1/payouts", "status": 200,
         "duration_ms": 4}
        for n in range(10)
    ]  # fmt: skip
    clock = {"now": at(86_400), "frozen": True, "offset_seconds": None}
    return Known(payout, rows, in_merchants_time(requests, rows, clock), endpoints, [], clock)


def _delivery(change: int, endpoint: str, attempts: int) -> dict[str, Any]:
    tried = [
        {"attempt": n + 1, "at": at(37 * change + 90 * n), "status": 503, "error_class": "HTTP_STATUS", "duration_ms": 3,
         "manual": False}
        for n in range(attempts)
    ]  # fmt: skip
    id_ = f"019a9a5e-3c00-7a41-8b1f-{change:06d}{endpoint:0>6}"
    return {
        "id": id_, "endpoint_id": endpoint, "event_type": "payout.failed", "attempt_count": attempts, "status": "PENDING",
        "attempts": tried,
    }  # fmt: skip


def test_the_money_is_where_the_last_transfer_left_it() -> None:
    lanes = {found.lane.name: found.lane.summary for found in payout_trace(known(changes=1)).lanes}
    assert (lanes["Available"], lanes["Locked"]) == ("", "1,500.00 is reserved")
    lanes = {found.lane.name: found.lane.summary for found in payout_trace(known(changes=2)).lanes}
    assert (lanes["Available"], lanes["Locked"]) == ("1,500.00 came back", "")


def test_a_request_is_shown_in_the_merchants_time() -> None:
    called, host = known(changes=2), {"at": "2026-11-26T03:00:00.000Z", "status": 200}
    read, created = {**host, "request_id": "x"}, {**host, "request_id": "r0"}
    moved = in_merchants_time([read, created], called.changes, called.clock)
    assert [(one["time"], one["said"]) for one in moved] == [
        ("after 2026-01-31 00:00:00", "after 2026-01-31 00:00:00 (host's time: 2026-11-26 03:00:00)"),
        ("2026-01-31 00:00:00", "2026-01-31 00:00:00 (host's time: 2026-11-26 03:00:00)"),
    ]
    never_moved = {"now": at(86_400), "frozen": False, "offset_seconds": 0}
    assert in_merchants_time([read], called.changes, never_moved)[0]["said"] == "2026-11-26 03:00:00"


def test_an_endpoint_that_has_not_got_an_event_is_ill() -> None:
    lanes = {found.lane.name: found.lane for found in payout_trace(known(changes=1, attempts=4)).lanes}
    assert (lanes["shop.example/0"].summary, lanes["shop.example/0"].tone) == ("has not got payout.failed", "bad")


def test_a_trace_says_which_webhooks_it_leaves_out() -> None:
    found = known(changes=3)
    found.changes[0]["deliveries"] = None  # type: ignore[index]  # the rows are dictionaries
    assert [one.lane.summary for one in payout_trace(found).lanes if one.lane.key == "events"] == [
        "3; below, webhooks of the last 2"
    ]


def test_a_large_trace_is_small() -> None:
    """300 attempts and 40 events, with the length of real paths."""
    templates = create_templates("x")

    class View:
        home = "/console/m/019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"

    macros = templates.get_template("trace.html").make_module({"view": View})
    trace = payout_trace(known(changes=40, attempts=320))
    assert sum(mark.count for mark in trace.marks if "ttempt" in mark.text) == 320
    assert len(macros.drawing(trace, "A payout").encode()) < MAX_SIZE  # type: ignore[attr-defined]  # a macro


def test_a_page_with_500_attempts_at_42_events_is_small_and_draws_each(
    world: World, receiver: Receiver, console: ConsoleClient
) -> None:
    receiver.respond = lambda _: (503, {}, b"down")
    world.post("/sandbox/v1/clock/freeze")
    for _ in range(2):
        world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "retry_profile": "fast"})
    payout_id = world.create_payout("0003")["id"]
    for _ in range(13):
        world.post("/sandbox/v1/drain")
        world.post(f"/api/v1/payouts/{payout_id}/reinitiate")
        world.post("/sandbox/v1/clock/advance", {"seconds": 137})
    console.sign_in(world.api_key)
    page = console.get(console.path(f"/console/payouts/{payout_id}"), headers={"Sec-Fetch-Site": "same-origin"})
    assert page.num_bytes_downloaded < MAX_SIZE
    changes = len(world.get(f"/api/v1/payouts/{payout_id}/timeline").json()["data"])
    assert changes == 42
    grouped = [int(count) for count in re.findall(r"<title>(\d+) attempts", page.text)]
    assert sum(grouped) + page.text.count("<title>Attempt ") == 2 * 6 * changes


def test_every_mark_can_be_reached_read_and_followed(world: World, receiver: Receiver, browsing: Browsing) -> None:
    receiver.respond = lambda _: (503, {}, b"closed")
    world.post("/sandbox/v1/clock/freeze")
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    payout_id = world.post("/api/v1/payouts", world.payout_body("0012")).json()["id"]
    world.post("/sandbox/v1/drain")
    page = browsing.open(f"/console/payouts/{payout_id}", world.api_key)
    marks = page.locator(".trace .mark")
    titles = [title.text_content() or "" for title in page.locator(".trace .mark title").all()]
    for expected in ("SUCCESS by the scenario", "LOCKED −", "payout.succeeded", "Attempt 1 of payout.created: 503", "Due: "):
        assert any(expected in title for title in titles), expected
    page.get_by_role("link", name="Create another like this").focus()
    reached = set()
    for _ in range(len(titles) + 10):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.querySelector('title')?.textContent"))
    assert set(titles) <= reached
    failed = marks.filter(has_text="Attempt 1 of payout.succeeded")
    failed.focus()
    assert "503" in page.locator(".trace-detail").inner_text()
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        check_accessibility(page)
        check_accessibility(page, "target-size")
        check_width(page)
    page.keyboard.press("Enter")
    page.wait_for_url("**/webhooks/deliveries/*")


def test_several_payouts_have_a_lane_each() -> None:
    payout = {"id": "p", "merchant_reference": "A", "status": "FAILED", "failure_code": "TIMEOUT"}
    drawn = payouts_trace([payout, {**payout, "id": "q"}], [known(2).changes, known(3).changes], at(100))
    assert [lane.lane.summary for lane in drawn.lanes] == ["FAILED: TIMEOUT"] * 2
    assert [mark.text.partition(",")[0] for mark in drawn.marks[:2]] == ["A: PENDING", "A: FAILED"]


# ------------------------------------------------------------------------------------------------ of an endpoint


def test_the_last_failure_of_an_endpoint_is_shown_also_after_another_event_has_arrived() -> None:
    good = {"attempt": 2, "at": at(90), "status": 200, "error_class": None, "duration_ms": 5, "manual": False}
    failing = _delivery(0, "e0", 1)
    assert last_failure([{**failing, "attempts": [*failing["attempts"], good]}]) == "HTTP 503"
    assert last_failure([{**failing, "attempts": [good]}]) is None


def test_an_endpoint_is_measured_by_its_last_deliveries() -> None:
    good = {"attempt": 2, "at": at(90), "status": 200, "error_class": None, "duration_ms": 5, "manual": False}
    late = {**_delivery(0, "e0", 1), "created_at": at(0), "next_attempt_at": None, "status": "SUCCEEDED", "attempt_count": 2}
    late["attempts"] = [*late["attempts"], good]
    waiting = {**_delivery(1, "e0", 1), "created_at": at(37), "next_attempt_at": at(600)}
    found = health([late], at(100))
    assert (found.attempts, found.succeeded, found.milliseconds, found.wait, found.missing) == (2, 1, 4, "1 min 30 s", 0)
    refused = {**waiting, "attempts": [{**attempt, "status": None} for attempt in waiting["attempts"]]}
    found = health([refused], at(200))
    assert (found.attempts, found.succeeded, found.milliseconds, found.unanswered) == (1, 0, None, 1)
    found = health([waiting, late], at(200))
    assert (found.wait, found.missing) == ("2 min 43 s", 1), "what has not arrived waits until now"
    assert found.last_failure == waiting
    drawn = endpoint_trace([waiting, late], at(100))
    assert [(lane.lane.summary, lane.lane.tone) for lane in drawn.lanes] == [
        ("failing, 1 attempt", "bad"), ("SUCCEEDED, 2 attempts", "good"),
    ]  # fmt: skip
    assert [(mark.tone, mark.is_due) for mark in drawn.marks] == [
        ("bad", False), ("neutral", True), ("bad", False), ("good", False),
    ]  # fmt: skip
    assert health([], at(0)).last_failure is None


def test_an_endpoint_shows_how_it_does(world: World, receiver: Receiver, browsing: Browsing) -> None:
    receiver.respond = lambda _: (503, {}, b"down")
    world.post("/sandbox/v1/clock/freeze")
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()["id"]
    world.post("/api/v1/payouts", world.payout_body("0001"))
    world.post("/sandbox/v1/drain")
    page = browsing.open(f"/console/webhooks/{endpoint}", world.api_key)
    assert "0 of 3" in page.locator("#endpoint-tiles").inner_text()
    assert page.locator("#endpoint-trace .mark.bad").count() == 3
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        check_accessibility(page)
        check_width(page)
    page.locator("#endpoint-tiles a").click()
    page.wait_for_url("**/webhooks/deliveries/*")
