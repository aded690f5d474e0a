"""Search payouts by a text. There is no index for it: each page reads a bounded number of payouts, newest first."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from sandbox.db.engine import connection, db_errors_as_503
from sandbox.db.rows import by_key
from sandbox.domain.payout import COLUMNS, to_payout
from sandbox.domain.query_errors import entries
from sandbox.http.paging import Page, PageWindow, page, page_until

MAX_SCANNED: Final = 5000
"""Payouts that one page reads at most. They take about ten milliseconds."""

_USER: Final = f"SELECT id::text FROM users WHERE {by_key('users', 'external_id', '$2')}"  # noqa: S608 -- constants
# `strpos` and not LIKE, so that nothing in the text is a wildcard. The spaces of an account number are ignored.
_SEARCH: Final = f"""
WITH scanned AS MATERIALIZED (
    SELECT * FROM payouts WHERE merchant_id = $1 AND id < $2::uuid AND id >= $3::uuid
    ORDER BY merchant_id DESC, id DESC LIMIT $4
)
SELECT {COLUMNS}, reading.scanned, reading.scanned_to FROM (
    SELECT (SELECT id::text FROM scanned ORDER BY id LIMIT 1) AS scanned_to, (SELECT count(*) FROM scanned) AS scanned
) reading LEFT JOIN LATERAL (
    SELECT * FROM scanned
    WHERE (
        strpos(lower(merchant_reference), $6) > 0 OR strpos(lower(account_number), replace($6, ' ', '')) > 0
        OR strpos(lower(account_title), $6) > 0 OR strpos(id::text, $6) > 0 OR user_id::text IN ($6, $7)
    )
    AND status = ANY ($8::text[]) AND dest_type = ANY ($9::text[]) AND metadata @> $10::jsonb
    AND ($11::text IS NULL OR merchant_reference = $11) AND ($12::uuid IS NULL OR user_id = $12)
    ORDER BY id DESC LIMIT $5
) payouts ON true
"""  # noqa: S608 -- constants


async def search_payouts(
    merchant_id: str,
    window: PageWindow,
    text: str,
    statuses: Sequence[str],
    dest_types: Sequence[str],
    filters: Mapping[str, str],
) -> Page:
    """Return a page of payouts, newest first, whose reference, account number, account title or id contains the text.

    Payouts of the user with this id or external id are found too. Upper and lower case are the same. `filters` are those of
    the list of payouts. A page that has read MAX_SCANNED payouts ends, even if it is empty; the next page continues there.
    """
    wanted = text.strip().lower()
    async with db_errors_as_503(), connection() as conn:
        user_id = await conn.fetchval(_USER, merchant_id, text.strip())
        records = await conn.fetch(
            _SEARCH,
            merchant_id,
            window.before,
            window.since,
            MAX_SCANNED,
            window.limit + 1,
            wanted,
            user_id,
            statuses,
            dest_types,
            msgspec.json.encode(entries(filters, "metadata")).decode(),
            filters.get("merchant_reference"),
            filters.get("user_id"),
        )
    found = [to_payout(record) for record in records if record["id"] is not None]
    if len(found) > window.limit or records[0]["scanned"] < MAX_SCANNED:
        return page(found, window.limit, [payout.id for payout in found])
    return page_until(found, records[0]["scanned_to"])
