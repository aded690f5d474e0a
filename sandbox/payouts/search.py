"""Search payouts by a text. There is no index for it: each page reads a bounded number of payouts, newest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from sandbox.domain.ids import MIN_ID, is_uuid, range_of_prefix
from sandbox.domain.payout import COLUMNS, Payout, to_payout
from sandbox.http.paging import (
    MAX_SCANNED,
    Page,
    PageWindow,
    after,
    is_second_part,
    newest_first,
    page,
    page_until,
    two_part_page,
)
from sandbox.http.query_errors import entries
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements

NARROWING: Final = ("failure_code", "bank_code", "wallet_code")
"""Filters without an index: a list with one of them reads a bounded number of payouts for each page."""

_SQL: Final = read_statements(__name__, columns=COLUMNS)
BY_REFERENCE: Final = _SQL["by_reference"]

_SEARCH: Final = {False: _SQL["search_of_merchant"], True: _SQL["search_of_user"]}
"""The statement for matching payouts, by whether the range is a user's."""
_END: Final = {False: _SQL["end_of_merchant"], True: _SQL["end_of_user"]}
"""The statement for the first payout of a range that a page no longer reads."""


@dataclass(frozen=True, slots=True)
class _Search:
    """A search of one merchant. `filters` are the arguments of `matching` from $5 to $8, `narrow` those from $16 on."""

    conn: Connection
    merchant_id: str
    filters: tuple[Sequence[str], Sequence[str], str, str | None]
    narrow: Sequence[str | None]
    text: str = ""
    user_ids: Sequence[str] = ()
    ids: tuple[str, str] = (MIN_ID, MIN_ID)

    async def read(
        self, before: str, since: str, user_id: str | None, limit: int, *, whole: bool
    ) -> tuple[list[Payout], str | None]:
        """Read up to MAX_SCANNED payouts with ids in [`since`, `before`), those of the user if given.

        Return up to `limit` that contain the text, or (`whole`) that pass the filters; and where the reading ended: ids below
        that are left.
        """
        owner = () if user_id is None else (user_id,)
        left = await self.conn.fetchval(_END[bool(owner)], self.merchant_id, before, since, *owner, MAX_SCANNED)
        end = None if left is None else after(left)
        found = await self.conn.fetch(
            _SEARCH[bool(owner)], self.merchant_id, before, end or since, user_id, *self.filters,
            None if whole else self.text, "".join(self.text.split()).upper(), self.text, self.user_ids, *self.ids, limit,
            *self.narrow,
        )  # fmt: skip
        return [to_payout(record) for record in found], end


def narrowing(filters: Mapping[str, str]) -> list[str | None]:
    """Return the values of the filters without an index, None for those that are not given."""
    return [filters.get(name) for name in NARROWING]


async def filter_payouts(
    merchant_id: str, window: PageWindow, statuses: Sequence[str], dest_types: Sequence[str], filters: Mapping[str, str]
) -> Page:
    """Return a page of the payouts that pass the filters, newest first.

    A page that has read MAX_SCANNED payouts ends, even if it is empty; the next page continues there.
    """
    metadata = msgspec.json.encode(entries(filters, "metadata")).decode()
    given = (statuses, dest_types, metadata, filters.get("merchant_reference"))
    async with connection(merchant_id) as conn:
        search = _Search(conn, merchant_id, given, narrowing(filters))
        found, end = await search.read(window.before, window.since, filters.get("user_id"), window.limit + 1, whole=True)
    if end is not None and len(found) <= window.limit:
        return page_until(found, end)
    return page(found, window.limit, [payout.id for payout in found])


async def search_payouts(
    merchant_id: str,
    window: PageWindow,
    text: str,
    statuses: Sequence[str],
    dest_types: Sequence[str],
    filters: Mapping[str, str],
) -> Page:
    """Return a page of the payouts that `text` finds. `filters` are those of the list of payouts.

    First come those that it identifies: the payout with this reference, those whose id begins with it, and those of the user
    with this id or external id. Indexes find them, however old they are. Then come those whose reference, account number,
    account title or id contains it, or whose amount it is. Both parts are in order, newest first. A page that has read
    MAX_SCANNED payouts of a range ends, even if it is empty; the next page continues there.
    """
    limit, user_id, reference = window.limit + 1, filters.get("user_id"), filters.get("merchant_reference")
    metadata = msgspec.json.encode(entries(filters, "metadata")).decode()
    narrow = narrowing(filters)
    async with connection(merchant_id) as conn:
        user_ids = [text] if is_uuid(text) else []
        user_ids += [
            record["id"] for record in await conn.fetch(_SQL["user"], merchant_id, text) if record["id"] not in user_ids
        ]
        ids = range_of_prefix(text)
        search = _Search(
            conn, merchant_id, (statuses, dest_types, metadata, reference), narrow, text, user_ids, ids or (MIN_ID, MIN_ID)
        )
        identified: list[Payout] = []
        if not is_second_part(window):
            ranges = [] if ids is None else [(min(window.before, ids[1]), max(window.since, ids[0]), user_id)]
            ranges += [(window.before, window.since, owner) for owner in user_ids if user_id in (None, owner)]
            readings = [await search.read(*part, limit, whole=True) for part in ranges]
            if reference in (None, text):
                arguments = (statuses, dest_types, window.before, window.since, user_id, metadata, *narrow)
                records = await conn.fetch(BY_REFERENCE, merchant_id, text, *arguments)
                readings.append(([to_payout(record) for record in records], None))
            # A range that was read to its limit may have more payouts below its end, but nothing is missing above.
            end = max((end for _, end in readings if end is not None), default=MIN_ID)
            identified = newest_first((payout for found, _ in readings for payout in found if payout.id >= end), limit)
            if len(identified) > window.limit:
                return page(identified, window.limit, [payout.id for payout in identified])
            if end != MIN_ID:
                return page_until(identified, end)
        before = window.before if is_second_part(window) else window.until
        containing, last = await search.read(before, window.since, user_id, limit, whole=False)
    return two_part_page(identified, containing, window.limit, last)
