"""The aggregator's pure functions read every row and keep the vendor's rate limit, whichever calls fail."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.users.aggregator.next_poll import (
    INTERVAL,
    MAX_CALLS,
    OVERLAP,
    WINDOW,
    Cursor,
    after_failure,
    after_page,
    earliest_call,
    has_shrunk,
)
from sandbox.users.aggregator.vendor_rows import UnreadablePageError, read_page, read_row
from sandbox.users.requests import CreateUserBody

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(seconds=60)


def test_after_a_page_that_is_not_the_last_the_next_is_due_at_once() -> None:
    cursor, due = after_page(Cursor(), NOW - SECOND, 3, NOW, NOW + SECOND, in_order=False)
    assert cursor == Cursor(None, 2, NOW - SECOND, NOW)
    assert due == NOW + SECOND


def test_the_last_page_moves_the_cursor_to_the_newest_row() -> None:
    cursor = Cursor(None, 3, NOW - SECOND, NOW)
    in_order, due = after_page(cursor, NOW - 9 * SECOND, 3, NOW, NOW + SECOND, in_order=True)
    assert (in_order, due) == (Cursor(NOW - SECOND), NOW + INTERVAL)
    late, _ = after_page(cursor, NOW - 9 * SECOND, 3, NOW, NOW + SECOND, in_order=False)
    assert late == Cursor(NOW - SECOND - OVERLAP), "the requested range must include rows that the vendor shows late"


def test_a_row_from_the_future_does_not_move_the_cursor_into_the_future() -> None:
    cursor, _ = after_page(Cursor(), NOW + timedelta(days=3650), 1, NOW, NOW, in_order=False)
    assert cursor.since == NOW - OVERLAP


def test_the_cursor_never_goes_back_even_if_there_are_no_rows() -> None:
    assert after_page(Cursor(NOW), NOW - MINUTE, 1, NOW, NOW, in_order=True)[0] == Cursor(NOW)
    assert after_page(Cursor(NOW), None, 0, NOW, NOW, in_order=False)[0] == Cursor(NOW)


def test_the_next_call_is_not_due_before_a_slow_response_has_ended() -> None:
    assert after_page(Cursor(), None, 0, NOW, NOW + 2 * INTERVAL, in_order=True)[1] == NOW + 2 * INTERVAL


@pytest.mark.parametrize(
    ("failures", "retry_after", "seconds"),
    [
        (0, None, 20), (1, None, 40), (3, None, 160), (4, None, 300), (10**6, None, 300), (0, 5, 20), (0, 90, 90),
        (0, 10**6, 3600),
    ],
)  # fmt: skip
def test_repeated_failures_increase_the_delay_up_to_a_maximum(failures: int, retry_after: int | None, seconds: int) -> None:
    cursor = Cursor(NOW, 2, NOW, NOW, failures)
    requested = None if retry_after is None else timedelta(seconds=retry_after)
    after, due = after_failure(cursor, requested, NOW)
    assert after == replace(cursor, failures=failures + 1), "the same page must be requested again"
    assert due == NOW + timedelta(seconds=seconds)


def test_reading_restarts_if_the_vendor_has_fewer_pages_than_before() -> None:
    cursor = Cursor(NOW, 3, NOW, NOW, 1)
    assert [has_shrunk(cursor, total) for total in (0, 2, 3, 4)] == [True, True, False, False]
    assert not has_shrunk(Cursor(NOW), 0), "a poll without new rows, which has 0 pages, must not restart the sync"
    assert after_failure(cursor, None, NOW, restart=True) == (Cursor(NOW, failures=2), NOW + 2 * INTERVAL)


def test_the_rate_limit_counts_from_the_end_of_each_call() -> None:
    assert earliest_call([NOW] * (MAX_CALLS - 1), NOW) == NOW
    ends = [NOW - WINDOW + SECOND * n for n in range(1, MAX_CALLS + 1)]
    assert earliest_call(ends, NOW) == NOW + SECOND
    assert earliest_call([*ends, NOW + SECOND * 30], NOW) == NOW + SECOND * 2, (
        "a call in progress must count until its lease ends"
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[int, int]], bool, int, list[str]]:
    """Generate rows as (second of creation, seconds until visible), whether newest come first, page size, and call results."""
    rows = draw(st.lists(st.tuples(st.integers(-400, 400), st.integers(0, 30)), max_size=60))
    results = st.sampled_from(["ok", "ok", "ok", "fail", "429", "repeat", "slow", "lost", "empty"])
    return rows, draw(st.booleans()), draw(st.integers(1, 7)), draw(st.lists(results, max_size=60))


@settings(max_examples=150, deadline=None)
@given(histories())
def test_all_rows_are_read_and_no_minute_has_six_calls_whichever_calls_fail(
    history: tuple[list[tuple[int, int]], bool, int, list[str]],
) -> None:
    rows, newest_first, size, results = history
    created = [NOW + SECOND * (second // 5 * 5) for second, _ in rows]  # a coarse clock gives many rows the same time
    visible = [NOW + SECOND * (second + late) for second, late in rows]
    order = sorted(range(len(rows)), key=lambda n: created[n], reverse=newest_first)
    cursor, due, read = Cursor(), NOW, set[int]()
    arrived: list[datetime] = []
    ended_by: list[datetime] = []
    done_after = NOW + timedelta(hours=3)
    while due < done_after:
        at = earliest_call(ended_by, due)
        result = results.pop() if results else "ok"
        ended = at + SECOND * (14 if result == "slow" else 0)
        arrived.append(ended if result == "slow" else at)  # a slow request arrives at its end: the worst case for the limit
        if result == "lost":
            # The worker dies during the call. Another one takes over when the lease has expired.
            due = at + SECOND * 30
            ended_by.append(due)
            continue
        ended_by.append(ended)
        if result in ("fail", "429"):
            cursor, due = after_failure(cursor, SECOND * 90 if result == "429" else None, ended)
            continue
        found = [n for n in order if visible[n] <= at and (cursor.since is None or created[n] >= cursor.since)]
        if result == "empty":
            found = []
        page = found[(cursor.page - 1) * size : cursor.page * size]
        read |= set(page)
        newest = max((created[n] for n in page), default=None)
        total = -(-len(found) // size)
        if has_shrunk(cursor, total):
            cursor, due = after_failure(cursor, None, ended, restart=True)
        else:
            cursor, due = after_page(cursor, newest, total, at, ended, in_order=False)
    assert read == set(range(len(rows)))
    arrived.sort()
    assert all(sixth - first >= MINUTE for first, sixth in zip(arrived, arrived[5:], strict=False))


def page_of(items: Sequence[object], **meta: Any) -> bytes:
    """Return a page of these rows as JSON."""
    return json.dumps({"items": items, "meta": {"totalPages": 1, **meta}}).encode()


VALID_ROW = {"id": "a", "userId": "074092", "createdAt": "2026-03-01T12:00:00.000Z", "type": "payout", "amount": 30}


def test_amounts_and_ids_of_a_row_are_read_exactly() -> None:
    row = read_row(json.dumps({**VALID_ROW, "amount": 1.2, "extra": [1]}).encode())
    assert (row.user_id, row.amount, row.type) == ("074092", Decimal("1.20"), "payout")
    assert read_row(json.dumps({**VALID_ROW, "id": 7, "userId": 12, "amount": "12"}).encode()).user_id == "12"


@pytest.mark.parametrize(
    "change",
    [
        {"id": None}, {"id": ""}, {"id": "x" * 201}, {"userId": "a\nb"}, {"userId": "\u0000"}, {"createdAt": "yesterday"},
        {"createdAt": "2026-03-01T12:00:00"}, {"createdAt": "0001-01-01T00:00:00Z"}, {"createdAt": "1969-12-31T23:59:59Z"},
        {"createdAt": "9999-12-31T23:59:59Z"}, {"createdAt": "0001-01-01T00:00:00+05:00"}, {"type": "gift"},
        {"amount": 1.234}, {"amount": 0}, {"amount": -1, "type": "earned"}, {"amount": "many"}, {"amount": None},
        {"amount": 10**12},
    ],
)  # fmt: skip
def test_an_invalid_row_is_kept_unchanged_and_does_not_affect_other_rows(change: dict[str, object]) -> None:
    found = read_page(page_of([{**VALID_ROW, **change}, VALID_ROW]), 1)
    assert len(found.rows) == 1
    assert json.loads(found.bad[0].raw.replace("\ufffd", "")) is not None
    assert found.bad[0].reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "the row must be an object"),
        ({**VALID_ROW, "id": None, "type": "gift"},
         "id must be a string or a whole number; type must be one of earned, paid_out, payout, spent"),
        ({name: value for name, value in VALID_ROW.items() if name != "createdAt"}, "createdAt is required"),
    ],
)  # fmt: skip
def test_an_invalid_row_is_reported_with_all_its_errors(row: object, reason: str) -> None:
    assert read_page(page_of([row]), 1).bad[0].reason == reason


@pytest.mark.parametrize(
    ("raw", "vendor_id"),
    [
        ({**VALID_ROW, "userId": "a\u200cb"}, "a"), ({"id": 7}, "7"), ({"id": None}, None), ({"id": ""}, None), ({}, None),
        ([], None),
    ],
)  # fmt: skip
def test_the_id_of_an_invalid_row_is_read_if_it_is_valid(raw: object, vendor_id: str | None) -> None:
    assert read_page(page_of([raw]), 1).bad[0].vendor_id == vendor_id


def test_every_allowed_vendor_user_id_can_be_read_and_used_in_a_path() -> None:
    allowed = []
    for text in (f"a{chr(number)}b" for number in range(0x2100)):
        try:
            msgspec.convert({"name": "n", "vendor_user_id": text}, CreateUserBody)
        except msgspec.ValidationError:
            continue
        allowed.append(text)
        assert read_row(json.dumps({**VALID_ROW, "userId": text}).encode()).user_id == text
    assert len(allowed) == 94
    assert "a/b" not in allowed


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"<html>", page_of([VALID_ROW])[:-5], json.dumps({"items": [VALID_ROW]}).encode(),
        page_of([VALID_ROW], totalPages=-1),
        page_of([VALID_ROW], itemCount=2), page_of([VALID_ROW], totalPages=2, currentPage=2), page_of([], totalPages=2),
        page_of([VALID_ROW], totalPages=2, totalItems=4, itemsPerPage=2), page_of([VALID_ROW], totalItems=2, itemsPerPage=9),
        b'{"items":' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_incomplete_or_inconsistent_pages_are_refused(body: bytes) -> None:
    with pytest.raises(UnreadablePageError):
        read_page(body, 1)
