"""Search users by a text. There is no index for it: each page reads a bounded number of users, newest first."""

from typing import Final

from sandbox.db.engine import connection
from sandbox.db.rows import by_key
from sandbox.domain.ids import MIN_ID, range_of_prefix
from sandbox.domain.user import COLUMNS, UserRow, to_user
from sandbox.http.paging import MAX_SCANNED, Page, PageWindow, after, is_second_part, newest_first, page, two_part_page

BY_EXTERNAL_ID: Final = f"""
SELECT {COLUMNS} FROM (SELECT * FROM users WHERE {by_key("users", "external_id", "$5")} OFFSET 0) u
WHERE id < $2 AND id >= $3 LIMIT $4
"""  # noqa: S608 -- constants
"""The user with this external id, if the id is in the window."""

LIST: Final = f"""
SELECT {COLUMNS} FROM users WHERE merchant_id = $1 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, users.id DESC LIMIT $4
"""  # noqa: S608 -- constants

_END: Final = """
SELECT id::text FROM users WHERE merchant_id = $1 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, users.id DESC OFFSET $4 LIMIT 1
"""
"""The first user that a page does not read any more."""

# `strpos` and not LIKE, so that nothing in the text is a wildcard. `lower` of the text is computed once. Users that the text
# identifies are left out: they were listed before.
_SEARCH: Final = f"""
SELECT {COLUMNS} FROM (
    SELECT * FROM users WHERE merchant_id = $1 AND id < $2::uuid AND id >= $3::uuid
    ORDER BY merchant_id DESC, users.id DESC OFFSET 0
) u
WHERE (strpos(lower(name), (SELECT lower($5::text))) > 0 OR strpos(lower(external_id), (SELECT lower($5))) > 0
        OR strpos(u.id::text, (SELECT lower($5))) > 0)
    AND external_id IS DISTINCT FROM $5 AND NOT (u.id >= $6::uuid AND u.id < $7::uuid)
ORDER BY u.id DESC LIMIT $4
"""  # noqa: S608 -- constants


async def search_users(merchant_id: str, window: PageWindow, text: str, external_id: str | None) -> Page:
    """Return a page of UserRows: first those that `text` identifies, then those that contain it. Both are newest first.

    A text identifies the user with this external id, and those whose id begins with it, however old they are. A user contains
    it in the name, external id or id, in upper or lower case. A page that has read MAX_SCANNED users ends, even if it is empty;
    the next page continues there.
    """
    limit = window.limit + 1
    ids = range_of_prefix(text)
    first, last = ids or (MIN_ID, MIN_ID)
    async with connection(merchant_id) as conn:

        async def with_external_id(value: str) -> list[UserRow]:
            arguments = (merchant_id, window.before, window.since, limit, value)
            return [to_user(record) for record in await conn.fetch(BY_EXTERNAL_ID, *arguments)]

        if external_id is not None:  # at most one user has it
            users = [user for user in await with_external_id(external_id) if _matches(user, text)]
            return page(users, window.limit, [user.id for user in users])
        identified: list[UserRow] = []
        if not is_second_part(window):
            users = await with_external_id(text)
            if ids is not None:
                bounds = (min(window.before, last), max(window.since, first))
                users += [to_user(record) for record in await conn.fetch(LIST, merchant_id, *bounds, limit)]
            identified = newest_first(users, limit)
            if len(identified) > window.limit:
                return page(identified, window.limit, [user.id for user in identified])
        before = window.before if is_second_part(window) else window.until
        left = await conn.fetchval(_END, merchant_id, before, window.since, MAX_SCANNED)
        end = None if left is None else after(left)
        records = await conn.fetch(_SEARCH, merchant_id, before, end or window.since, limit, text, first, last)
    return two_part_page(identified, [to_user(record) for record in records], window.limit, end)


def _matches(user: UserRow, text: str) -> bool:
    values = (user.name, user.external_id or "", user.id)
    return any(text.lower() in value.lower() for value in values)
