"""Search users by a text. There is no index for it: each page reads a bounded number of users, newest first."""

from typing import Final

from sandbox.db.engine import connection, db_errors_as_503
from sandbox.domain.user import COLUMNS, to_user
from sandbox.http.paging import Page, PageWindow, page, page_until

MAX_SCANNED: Final = 5000
"""Users that one page reads at most."""

# `strpos` and not LIKE, so that nothing in the text is a wildcard.
_SEARCH: Final = f"""
WITH scanned AS MATERIALIZED (
    SELECT * FROM users WHERE merchant_id = $1 AND id < $2::uuid AND id >= $3::uuid
    ORDER BY merchant_id DESC, id DESC LIMIT $4
)
SELECT {COLUMNS}, reading.scanned, reading.scanned_to FROM (
    SELECT (SELECT id::text FROM scanned ORDER BY id LIMIT 1) AS scanned_to, (SELECT count(*) FROM scanned) AS scanned
) reading LEFT JOIN LATERAL (
    SELECT * FROM scanned
    WHERE (strpos(lower(name), $6) > 0 OR strpos(lower(external_id), $6) > 0 OR strpos(id::text, $6) > 0)
        AND ($7::text IS NULL OR external_id = $7)
    ORDER BY id DESC LIMIT $5
) users ON true
"""  # noqa: S608 -- constants


async def search_users(merchant_id: str, window: PageWindow, text: str, external_id: str | None) -> Page:
    """Return a page of UserRows, newest first, whose name, external id or id contains the text, in upper or lower case.

    A page that has read MAX_SCANNED users ends, even if it is empty; the next page continues there.
    """
    async with db_errors_as_503(), connection() as conn:
        records = await conn.fetch(
            _SEARCH,
            merchant_id,
            window.before,
            window.since,
            MAX_SCANNED,
            window.limit + 1,
            text.strip().lower(),
            external_id,
        )
    found = [to_user(record) for record in records if record["id"] is not None]
    if len(found) > window.limit or records[0]["scanned"] < MAX_SCANNED:
        return page(found, window.limit, [user.id for user in found])
    return page_until(found, records[0]["scanned_to"])
