"""Read payouts for answers that count them, that have their history, or that begin at an offset."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, get_args

from sandbox.domain.clock import render
from sandbox.domain.enumerations import DestType
from sandbox.domain.payout import Payout
from sandbox.domain.payout_states import STATUSES
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.payouts.reads import PayoutReads

MAX_OFFSET: Final = 10_000
"""Unlike a cursor, an offset makes the database read everything before the page."""
MAX_NUMBERED: Final = 10_100
"""A list is counted up to here: all pages of up to 100 items, up to MAX_OFFSET."""

_SQL: Final = read_statements(__name__)


class HistoryEntry(NamedTuple):
    """A payout's change: its event, the status that it led to, and when, as RFC 3339."""

    event_id: str
    status: str
    at: str


class NumberedPage(NamedTuple):
    """Part of a list, and how many items the whole list has, at most MAX_NUMBERED."""

    payouts: Sequence[Payout]
    total: int


async def read_histories(merchant_id: str, payout_ids: Sequence[str]) -> Mapping[str, Sequence[HistoryEntry]]:
    """Return the changes of each payout, oldest first. Raises CONNECTION_ERRORS."""
    found: dict[str, list[HistoryEntry]] = {payout_id: [] for payout_id in payout_ids}
    async with connection(merchant_id) as conn:
        records = await conn.fetch(_SQL["histories"], merchant_id, payout_ids)
    for record in records:
        entry = HistoryEntry(record["event_id"], record["to_status"], render(record["created_at"]))
        found[record["payout_id"]].append(entry)
    return found


async def read_numbered_page(
    reads: PayoutReads,
    merchant_id: str,
    limit: int,
    offset: int,
    statuses: Sequence[str] = STATUSES,
    before: str = "",
    since: str = "",
) -> NumberedPage:
    """Return payouts with ids in [`since`, `before`), newest first, from the one at `offset`, which is at most MAX_OFFSET.

    Raises CONNECTION_ERRORS.
    """
    async with connection(merchant_id) as conn:
        record = await conn.fetchrow(
            _SQL["numbered"], merchant_id, statuses, get_args(DestType), before, since, MAX_NUMBERED, MAX_NUMBERED, offset,
            limit,
        )  # fmt: skip
    assert record is not None
    found = [await reads.get(merchant_id, payout_id) for payout_id in record["ids"] or ()]
    return NumberedPage([payout for payout in found if payout is not None], record["count"])
