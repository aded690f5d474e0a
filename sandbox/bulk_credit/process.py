"""The worker's part of a bulk credit: credit its rows, chunk by chunk, each chunk in one transaction.

A row leaves PENDING in the transaction that credits it, so whatever dies in between, each is credited exactly once.
"""

import os
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.db.engine import connection
from sandbox.db.rows import by_key
from sandbox.domain.bulk_credit import COLUMNS, status_when_done, to_activity
from sandbox.domain.ledger import CREDIT
from sandbox.domain.unit import IDS_PER_COMMAND, Event, UnitOfWork
from sandbox.domain.user_commands import LARGEST_SUM
from sandbox.unit_of_work.claim import Claim
from sandbox.unit_of_work.ledger import WalletCredit, credit_wallets
from sandbox.unit_of_work.runner import NothingToDoError, UnitsOfWork
from sandbox.unit_of_work.users import add_credits

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

CHUNK: Final = 2000
"""Rows credited in one transaction: others of the merchant wait no longer than for these."""
_LARGEST_FUNDS: Final = Decimal("99999999999999999.99")
"""What bulk credits may bring all wallets of a merchant to, together; the ledger's columns hold ten times as much."""
FAIL_LIST: Final = "BULK_CREDIT_FAIL_USER_IDS"

_NEXT: Final = f"""
SELECT {COLUMNS} FROM bulk_credits WHERE merchant_id = $1 AND status IN ('UPLOADED', 'PROCESSING')
ORDER BY merchant_id, bulk_credits.id LIMIT 1
"""  # noqa: S608 -- constants
_ROWS: Final = f"""
SELECT i.line, i.user_id, i.amount, u.credited
FROM (
    SELECT line, user_id, amount FROM bulk_credit_items WHERE merchant_id = $1 AND activity_id = $2 AND status = 'PENDING'
    ORDER BY merchant_id, activity_id, status, line LIMIT $3
) i LEFT JOIN LATERAL (SELECT credited FROM users WHERE {by_key("users", "id", "i.user_id::uuid")} OFFSET 0) u ON true
ORDER BY i.line
"""  # noqa: S608 -- constants
# A chunk is the next rows that are PENDING, so under the merchant's lock its first and its last line bound it. What becomes of
# each is looked up by its line: a join would be planned by statistics, which a file that has just come in has none of.
_WRITE_ROWS: Final = """
UPDATE bulk_credit_items SET status = $5::jsonb #>> ARRAY[line::text, 'status'], error = $5 #>> ARRAY[line::text, 'error'],
    transfer_id = ($5 #>> ARRAY[line::text, 'transfer_id'])::uuid
WHERE merchant_id = $1 AND activity_id = $2 AND status = 'PENDING' AND line BETWEEN $3 AND $4
"""
_WRITE: Final = f"""
UPDATE bulk_credits SET status = $3, invalid = $4, succeeded = $5, failed = $6, updated_at = $7, completed_at = $8
WHERE merchant_id = $1 AND id = $2 RETURNING {COLUMNS}
"""  # noqa: S608 -- constants


def fail_listed_users() -> set[str]:
    """The users whose rows are to fail: ids parted by commas or white space, or with `@` in front the file that holds them.

    A process's environment cannot be changed from outside; a file can, while the worker runs.
    """
    text = os.environ.get(FAIL_LIST, "")
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except FileNotFoundError:
            text = ""
    return set(text.lower().replace(",", " ").split())


async def credit_chunk(work: UnitsOfWork, merchant_id: str, fail_listed: Set[str]) -> bool:
    """Credit the next rows of a merchant's oldest bulk credit; returns whether there may be more.

    Safe to call from any number of workers: the merchant's lock lets one through at a time. Raises asyncpg's errors; then
    nothing was written.
    """
    async with connection() as conn:
        # A look that finds nothing takes no lock and uses up no ids: how often workers look may change nothing.
        activity = await conn.fetchrow(_NEXT, merchant_id)
    if activity is None:
        return False

    async def decide(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> bool:
        activity = await conn.fetchrow(_NEXT, merchant_id)
        if activity is None:
            # Another worker did it while this one waited for the lock. Its ids are given back: how many workers there are may
            # change nothing either.
            raise NothingToDoError(False)
        rows = await conn.fetch(_ROWS, merchant_id, activity["id"], CHUNK)
        outcomes, credits_ = _decide(unit, rows, fail_listed)
        await credit_wallets(conn, merchant_id, unit.now, credits_, f"bulk credit {activity['id']}")
        await add_credits(conn, unit, credits_)
        await _write(conn, unit, activity, outcomes, is_done=len(rows) < CHUNK)
        return True

    return await work.decide(Claim(merchant_id, CHUNK // IDS_PER_COMMAND + 1), decide)


class _Outcome(msgspec.Struct, omit_defaults=True):
    """What becomes of a row. What it leaves out is one thing less for the server to read, of each of many rows."""

    line: int
    status: str
    transfer_id: str | None = None
    error: str | None = None


def _decide(
    unit: UnitOfWork, rows: Sequence[Mapping[str, Any]], fail_listed: Set[str]
) -> tuple[list[_Outcome], list[WalletCredit]]:
    """What becomes of each row, and the credits of those that succeed."""
    outcomes, credits_ = [], []
    credited: dict[str, Decimal] = {}
    in_wallets = -unit.balances[CREDIT.debit]
    for row in rows:
        line, user_id, amount = row["line"], row["user_id"], Decimal(row["amount"])
        before = credited.get(user_id, row["credited"])
        if before is None:
            outcomes.append(_Outcome(line, "INVALID", error="uuid: there is no such user"))
        elif user_id in fail_listed:
            outcomes.append(_Outcome(line, "FAILED", error=f"the credit failed because {FAIL_LIST} lists the user"))
        elif before + amount > LARGEST_SUM or in_wallets + amount > _LARGEST_FUNDS:
            # A sum that no column holds would stop the file here, and all that come after it.
            largest = LARGEST_SUM if before + amount > LARGEST_SUM else _LARGEST_FUNDS
            whose = "the user's credits" if largest == LARGEST_SUM else "all wallets together"
            outcomes.append(_Outcome(line, "INVALID", error=f"amount: would take {whose} above {largest}"))
        else:
            credited[user_id] = before + amount
            in_wallets += amount
            credit = WalletCredit(unit.ids.next(), user_id, row["amount"], line)
            credits_.append(credit)
            outcomes.append(_Outcome(line, "SUCCEEDED", credit.transfer_id))
    return outcomes, credits_


async def _write(
    conn: "PoolConnectionProxy[Any]",
    unit: UnitOfWork,
    activity: Mapping[str, Any],
    outcomes: Sequence[_Outcome],
    *,
    is_done: bool,
) -> None:
    if outcomes:
        by_line = msgspec.json.encode({outcome.line: outcome for outcome in outcomes}).decode()
        first, last = outcomes[0].line, outcomes[-1].line
        written = await conn.execute(_WRITE_ROWS, unit.merchant_id, activity["id"], first, last, by_line)
        if written != f"UPDATE {len(outcomes)}":
            raise RuntimeError("a row to credit is gone")
    statuses = [outcome.status for outcome in outcomes]
    succeeded = activity["succeeded"] + statuses.count("SUCCEEDED")
    failed = activity["failed"] + statuses.count("FAILED")
    status = status_when_done(activity["total"], succeeded, failed) if is_done else "PROCESSING"
    completed_at: datetime | None = unit.now if is_done else None
    record = await conn.fetchrow(
        _WRITE,
        unit.merchant_id,
        activity["id"],
        status,
        activity["invalid"] + statuses.count("INVALID"),
        succeeded,
        failed,
        unit.now,
        completed_at,
    )
    assert record is not None
    if is_done:
        unit.emit(_completed(unit, record))


def _completed(unit: UnitOfWork, record: Mapping[str, Any]) -> Event:
    event_id, event_type = unit.ids.next(), "bulk_credit.completed"
    return Event(
        id=event_id,
        type=event_type,
        body=unit.event_body(event_id, event_type, None, msgspec.json.encode(to_activity(record))),
        payout_id=None,
        change=None,
        from_status=None,
        to_status=None,
        cause="worker",
        scenario=None,
        step=None,
        transfer_id=None,
        request_id=record["request_id"],
    )
