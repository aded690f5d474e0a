"""When a vendor's feed is read next, and from where. Pure: times are passed in.

A feed is read in walks: all pages of what was made since a moment, one page a call. The moment moves only when a walk is
done, to the newest row that it saw, inclusively, since a vendor's clock may be coarse; rows read twice are known by their ids.
A walk has no end date, so rows that are added while it goes on move pages in one direction only, whether the vendor lists
the oldest first (they come last) or the newest first (a row moves to a later page, and is read again). Where pages go away
instead, rows may have moved to pages that were read already: such a walk is begun anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

PAGE_SIZE: Final = 1000
INTERVAL: Final = timedelta(seconds=20)
CALLS: Final = 5
WINDOW: Final = timedelta(seconds=61)
"""A second more than the vendor's minute: the clocks of two workers' machines are never quite the same."""
LEASE: Final = timedelta(seconds=30)
"""How long a call that nothing more is heard of is held to be under way; more than its timeout."""
OVERLAP: Final = timedelta(seconds=60)
"""How much later than its time a row may become visible at a vendor that commits out of order."""
FIRST_BACKOFF: Final = timedelta(seconds=20)
LONGEST_BACKOFF: Final = timedelta(minutes=5)
LONGEST_RETRY_AFTER: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where reading a feed stands."""

    since: datetime | None = None
    """Everything older has been read; None before the first walk is done."""
    page: int = 1
    """The page to ask for next, of the rows made since then."""
    seen: datetime | None = None
    """The newest row of this walk so far."""
    walk_began: datetime | None = None
    failures: int = 0
    """Calls that failed since the last that did not."""


def earliest_call(ended_by: Sequence[datetime], now: datetime) -> datetime:
    """When the next call may begin, `now` at the earliest.

    `ended_by` are the times by which the recent calls had ended. Counted from their ends, because a call that began long
    before it reached the vendor counts there from when it came.
    """
    if len(ended_by) < CALLS:
        return now
    return max(now, sorted(ended_by)[-CALLS] + WINDOW)


def after_page(
    cursor: Cursor, newest: datetime | None, total_pages: int, began: datetime, ended: datetime, *, in_order: bool
) -> tuple[Cursor, datetime]:
    """What follows a page that was read: the cursor, and when to poll next (the limit on calls may put that off).

    `newest` is the time of the page's newest row. `in_order` says that rows appear in the order of their times, as in our
    own feed; another vendor's rows may be late, or from the future, where the cursor must not follow them.
    """
    seen = max((moment for moment in (cursor.seen, newest) if moment is not None), default=None)
    walk_began = began if cursor.page == 1 or cursor.walk_began is None else cursor.walk_began
    if cursor.page < total_pages:
        return Cursor(cursor.since, cursor.page + 1, seen, walk_began), ended
    since = cursor.since
    if seen is not None:
        reached = seen if in_order else min(seen, walk_began) - OVERLAP
        since = reached if since is None else max(since, reached)
    return Cursor(since), max(ended, began + INTERVAL)


def has_shrunk(cursor: Cursor, total_pages: int) -> bool:
    """Whether a walk's pages are fewer than before: a later page is asked for only after the vendor said that it is there."""
    return cursor.page > 1 and total_pages < cursor.page


def after_failure(
    cursor: Cursor, retry_after: timedelta | None, ended: datetime, *, anew: bool = False
) -> tuple[Cursor, datetime]:
    """What follows a call that failed: the same page again, later each time; `retry_after` may make it later still.

    `anew` begins the walk again at its first page.
    """
    failures = cursor.failures + 1
    wait = min(FIRST_BACKOFF * 2 ** min(failures - 1, 10), LONGEST_BACKOFF)
    if retry_after is not None:
        wait = max(wait, min(retry_after, LONGEST_RETRY_AFTER))
    return Cursor(cursor.since, failures=failures) if anew else replace(cursor, failures=failures), ended + wait
