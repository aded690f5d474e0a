"""Search users by a text. There is no index for it: each page reads a bounded number of users, newest first."""

from typing import Final

from sandbox.domain.ids import MIN_ID, range_of_prefix
from sandbox.domain.user import COLUMNS, UserRow, to_user
from sandbox.http.paging import MAX_SCANNED, Page, PageWindow, after, is_second_part, newest_first, page, two_part_page
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements

_SQL: Final = read_statements(__name__, columns=COLUMNS)
BY_EXTERNAL_ID: Final = _SQL["by_external_id"]
LIST: Final = _SQL["list"]


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
        left = await conn.fetchval(_SQL["end"], merchant_id, before, window.since, MAX_SCANNED)
        end = None if left is None else after(left)
        records = await conn.fetch(_SQL["search"], merchant_id, before, end or window.since, limit, text, first, last)
    return two_part_page(identified, [to_user(record) for record in records], window.limit, end)


def _matches(user: UserRow, text: str) -> bool:
    values = (user.name, user.external_id or "", user.id)
    return any(text.lower() in value.lower() for value in values)
