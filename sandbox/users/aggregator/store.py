"""Claim a poll and record its result.

The cursor's row is the lock of a merchant's aggregated data. It is separate from the merchant's own lock, so that payouts never
wait for a slow vendor. Calls are counted in PostgreSQL: a flushed Redis must not allow more calls than the vendor's limit.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Final

import msgspec
from asyncpg import Record

from sandbox.domain.clock import milliseconds
from sandbox.domain.ids import first_id_at, uuid7
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import SealedSecretError, SecretBox
from sandbox.unit_of_work.transaction import write_rows
from sandbox.users.aggregator.feed_clients import PageRequest
from sandbox.users.aggregator.next_poll import LEASE, WINDOW, Cursor, earliest_call
from sandbox.users.aggregator.vendor_rows import BadRow, VendorRow

FETCHES_KEPT: Final = timedelta(days=7)
"""How long the record of a fetch is kept."""
MAX_DEAD_LETTERS: Final = 10_000
"""Maximum dead letters per merchant."""

_SQL: Final = read_statements(__name__)
ANY_ROWS_OR_VENDORS: Final = _SQL["any_rows_or_vendors"]
DUE_HTTP: Final = _SQL["due_http"]
DUE_OWN: Final = _SQL["due_own"]
_RANDOM: Final = SystemRandom()


@dataclass(frozen=True, slots=True)
class Claim:
    """A call to a vendor that this process has claimed, so that no other process makes it."""

    merchant_id: str
    fetch_id: str
    cursor: Cursor
    began: datetime
    request: PageRequest


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a call: rows, or an error."""

    ended: datetime
    status: int | None = None
    rows: Sequence[VendorRow] = ()
    bad: Sequence[BadRow] = ()
    error: str | None = None


async def lock_cursor(conn: Connection, merchant_id: str, now: datetime) -> Record | None:
    """Lock the merchant's cursor until the transaction ends. Create it if needed; return None if the merchant was deleted."""
    record: Record | None = await conn.fetchrow(_SQL["lock"], merchant_id)
    if record is not None:
        return record
    # Create it under the merchant's lock, as a deletion does its work, so that the merchant is not deleted at the same time.
    if await conn.fetchrow(_SQL["merchant"], merchant_id) is None:
        return None
    await conn.execute(_SQL["create_cursor"], merchant_id, now)
    return await conn.fetchrow(_SQL["lock"], merchant_id)


async def claim_poll(merchant_id: str, box: SecretBox, now: datetime) -> Claim | None:
    """Claim the merchant's next call if it is due and the rate limit allows it at `now`. Otherwise return None.

    A claimed call counts towards the rate limit even if the process dies before making it. Its lease expires, and another
    process requests the same page.
    """

    async def claim(conn: Connection) -> Claim | None:
        record = await lock_cursor(conn, merchant_id, now)
        if record is None or record["next_poll_at"] > now:
            return None
        # Calls that started before this time ended before the window began.
        first = first_id_at(milliseconds(now - WINDOW - 4 * LEASE))
        recent = await conn.fetch(_SQL["recent"], merchant_id, first, now - WINDOW)
        at = earliest_call([call["ended_by"] for call in recent], now)
        if at > now:
            await conn.execute(_SQL["postpone"], merchant_id, at)
            return None
        if record["fetch_id"] is not None:
            await conn.execute(_SQL["mark_abandoned"], merchant_id, record["fetch_id"])
        cursor = Cursor(record["since"], record["page"], record["newest_read"], record["sync_started_at"], record["failures"])
        headers = open_headers(box, merchant_id, record["headers"])
        request = PageRequest(merchant_id, record["url"], headers, cursor.since, cursor.page)
        fetch_id = new_id(now)
        await conn.execute(_SQL["begin"], merchant_id, fetch_id, request.address(), cursor.page, now, now + LEASE)
        await conn.execute(_SQL["leased"], merchant_id, now + LEASE, fetch_id, now)
        return Claim(merchant_id, fetch_id, cursor, now, request)

    return await write_rows(merchant_id, claim)


async def record_fetch(claim: Claim, outcome: Outcome, cursor: Cursor, due: datetime, last_id: str | None) -> bool:
    """Write a page's rows, their balances, the next cursor and the record of the call, all or nothing.

    If the claim has expired or the source has changed, write only the record of the call and return False. The page is then
    requested again.
    """

    async def record(conn: Connection) -> bool:
        cursor_row = await conn.fetchrow(_SQL["lock"], claim.merchant_id)
        if cursor_row is None:
            return False
        if cursor_row["fetch_id"] != claim.fetch_id:
            await _end(conn, claim, outcome, "FAILED", 0, "the response came too late, or the source was changed")
            return False
        new = await add_rows(conn, claim.merchant_id, outcome.rows, outcome.ended)
        await _add_dead_letters(conn, claim.merchant_id, outcome.bad, outcome.ended)
        await conn.execute(
            _SQL["move"], claim.merchant_id, cursor.since, cursor.page, cursor.newest_read, cursor.sync_started_at,
            cursor.failures, due, last_id, outcome.ended,
        )  # fmt: skip
        await _end(conn, claim, outcome, "SUCCEEDED" if outcome.error is None else "FAILED", new, outcome.error)
        await conn.execute(
            _SQL["delete_old_fetches"], claim.merchant_id, first_id_at(milliseconds(outcome.ended - FETCHES_KEPT))
        )
        return True

    return await write_rows(claim.merchant_id, record)


async def add_rows(conn: Connection, merchant_id: str, rows: Sequence[VendorRow], now: datetime) -> int:
    """Insert new rows and add them to their users' balances. Return how many were new. The caller must lock the cursor."""
    if not rows:
        return 0
    users = sorted({row.user_id for row in rows})
    new: int = await conn.fetchval(
        _SQL["add_rows"], merchant_id,
        [row.vendor_id for row in rows], [row.user_id for row in rows], [row.type for row in rows],
        [row.amount for row in rows], [row.created_at for row in rows],
        users, new_ids(now, len(users)), now,
    )  # fmt: skip
    return new


async def dead_letter_capacity(conn: Connection, merchant_id: str, bad: Sequence[BadRow]) -> tuple[int, int]:
    """Return how many of these rows would be new dead letters, and how many more dead letters the merchant can have."""
    counts = await conn.fetchrow(_SQL["count_dead"], merchant_id, [_digest(row) for row in bad])
    assert counts is not None
    return counts["new"], MAX_DEAD_LETTERS - counts["kept"]


def seal_headers(box: SecretBox, merchant_id: str, headers: str, nonce: bytes) -> bytes:
    """Seal the JSON of a vendor's headers, which contain its keys."""
    return box.seal(headers, f"{merchant_id}/vendor", nonce)


def open_headers(box: SecretBox, merchant_id: str, sealed: bytes | None) -> dict[str, str]:
    """Return the headers of calls to a vendor; none if they cannot be opened."""
    if sealed is None:
        return {}
    try:
        return msgspec.json.decode(box.open(sealed, f"{merchant_id}/vendor"), type=dict[str, str])
    except SealedSecretError:
        # Sealed under another SANDBOX_SECRET_KEY. The vendor will refuse the call, and the record will show it.
        return {}


def new_id(now: datetime) -> str:
    """Return a new id with the time `now`."""
    return new_ids(now, 1)[0]


def new_ids(now: datetime, count: int) -> list[str]:
    """Return new ids with the time `now`, in increasing order."""
    start = _RANDOM.getrandbits(31)
    return [uuid7(milliseconds(now), start + number, _RANDOM.getrandbits(42)) for number in range(count)]


async def _add_dead_letters(conn: Connection, merchant_id: str, bad: Sequence[BadRow], now: datetime) -> None:
    if bad:
        await conn.execute(
            _SQL["insert_dead_letters"], merchant_id, now, new_ids(now, len(bad)),
            [_digest(row) for row in bad], [row.raw for row in bad], [row.reason for row in bad],
        )  # fmt: skip


def _digest(row: BadRow) -> bytes:
    # A digest of the row's text, so that a row received repeatedly is kept once.
    return hashlib.sha256(row.raw.encode()).digest()


async def _end(conn: Connection, claim: Claim, outcome: Outcome, name: str, new: int, error: str | None) -> None:
    duration = round((outcome.ended - claim.began) / timedelta(milliseconds=1))
    await conn.execute(
        _SQL["end"], claim.merchant_id, claim.fetch_id, name, outcome.status, len(outcome.rows) + len(outcome.bad), new,
        len(outcome.bad), duration, error, outcome.ended,
    )  # fmt: skip
