"""Decide when and from where to read a vendor's feed next. Pure: times are passed in.

A feed is read in syncs. A sync reads all pages of rows created since a start time, one page per call. When it is complete, the
start time moves to the newest row it read. The next sync reads that row again, because a vendor's clock may be coarse; ids
identify rows that are read twice.

A sync has no end time, so rows added during it can only move rows to later pages: if the vendor lists the oldest first, they
come last; if it lists the newest first, rows shift to later pages and are read again. If the number of pages shrinks, rows may
have moved to pages already read, so the sync starts over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

PAGE_SIZE: Final = 1000
INTERVAL: Final = timedelta(seconds=20)
MAX_CALLS: Final = 5
"""Maximum number of calls per WINDOW: the vendor's rate limit."""
WINDOW: Final = timedelta(seconds=61)
"""The minute of the vendor's limit plus a second, because the clocks of two workers' machines differ a little."""
LEASE: Final = timedelta(seconds=30)
"""How long a call counts as running if its worker never reports back; longer than the call's timeout."""
OVERLAP: Final = timedelta(seconds=60)
"""How late a row may become visible at a vendor that commits out of order."""
FIRST_BACKOFF: Final = timedelta(seconds=20)
MAX_BACKOFF: Final = timedelta(minutes=5)
MAX_RETRY_AFTER: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position in a feed."""

    since: datetime | None = None
    """The sync's start time: older rows have been read. None until the first sync is complete."""
    page: int = 1
    """The page to request next."""
    newest_read: datetime | None = None
    """The time of the newest row in this sync so far."""
    sync_started_at: datetime | None = None
    failures: int = 0
    """Consecutive failed calls."""


def earliest_call(ended_by: Sequence[datetime], now: datetime) -> datetime:
    """Return when the next call may begin: `now` or later, so that the vendor's rate limit holds.

    `ended_by` are the times by which the recent calls had ended. The window starts at a call's end, because the vendor counts
    a call from its arrival, which may be long after its start.
    """
    if len(ended_by) < MAX_CALLS:
        return now
    return max(now, sorted(ended_by)[-MAX_CALLS] + WINDOW)


def after_page(
    cursor: Cursor, newest: datetime | None, total_pages: int, began: datetime, ended: datetime, *, in_order: bool
) -> tuple[Cursor, datetime]:
    """Return the cursor after a page was read, and when to poll next (`earliest_call` may be later).

    `newest` is the time of the page's newest row. `in_order` says that rows become visible in the order of their times, as in
    the sandbox's own feed. Another vendor's rows may be late, or dated in the future; the cursor must not move past late rows.
    """
    newest_read = max((moment for moment in (cursor.newest_read, newest) if moment is not None), default=None)
    sync_started_at = began if cursor.page == 1 or cursor.sync_started_at is None else cursor.sync_started_at
    if cursor.page < total_pages:
        return Cursor(cursor.since, cursor.page + 1, newest_read, sync_started_at), ended
    since = cursor.since
    if newest_read is not None:
        reached = newest_read if in_order else min(newest_read, sync_started_at) - OVERLAP
        since = reached if since is None else max(since, reached)
    return Cursor(since), max(ended, began + INTERVAL)


def has_shrunk(cursor: Cursor, total_pages: int) -> bool:
    """Return whether the sync now has fewer pages: the page was requested because the vendor had reported that it exists."""
    return cursor.page > 1 and total_pages < cursor.page


def after_failure(
    cursor: Cursor, retry_after: timedelta | None, ended: datetime, *, restart: bool = False
) -> tuple[Cursor, datetime]:
    """Return the cursor after a failed call, and when to retry the page: with exponential backoff, or after `retry_after`.

    `restart` starts the sync again at its first page.
    """
    failures = cursor.failures + 1
    wait = min(FIRST_BACKOFF * 2 ** min(failures - 1, 10), MAX_BACKOFF)
    if retry_after is not None:
        wait = max(wait, min(retry_after, MAX_RETRY_AFTER))
    return Cursor(cursor.since, failures=failures) if restart else replace(cursor, failures=failures), ended + wait
