"""Credit the rows of a bulk credit in the worker, in chunks of one transaction each.

The transaction that credits a row also moves it out of PENDING. So each row is credited exactly once, even after a crash.
"""

import os
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from sandbox.domain.bulk_credit import COLUMNS, Activity, status_when_done, to_activity
from sandbox.domain.events import NewEvent
from sandbox.domain.ledger import CREDIT
from sandbox.domain.unit import IDS_PER_PAYOUT, UnitOfWork
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.live_feed import Note
from sandbox.unit_of_work.claim import ClaimRequest
from sandbox.unit_of_work.ledger import WalletCredit, credit_wallets
from sandbox.unit_of_work.runner import NothingToDoError, UnitOfWorkRunner
from sandbox.unit_of_work.users import add_credits
from sandbox.users.commands import MAX_SUM

CHUNK: Final = 2000
"""Maximum number of rows credited in one transaction. It bounds how long the merchant's other requests wait for the lock."""
_MAX_FUNDS: Final = Decimal("99999999999999999.99")
"""Maximum total of a merchant's wallets after a bulk credit. The ledger's columns hold ten times as much."""
FAIL_LIST: Final = "BULK_CREDIT_FAIL_USER_IDS"

_SQL: Final = read_statements(__name__, columns=COLUMNS)


def read_user_ids_to_fail() -> set[str]:
    """Return the ids of the users whose rows must fail, from the environment variable BULK_CREDIT_FAIL_USER_IDS.

    Its value is a list separated by commas or white space, or `@` and the path of a file with such a list. A file can be
    changed while the worker runs; a process's environment cannot.
    """
    text = os.environ.get(FAIL_LIST, "")
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except FileNotFoundError:
            text = ""
    return set(text.lower().replace(",", " ").split())


async def credit_chunk(
    work: UnitOfWorkRunner,
    merchant_id: str,
    user_ids_to_fail: Set[str],
    on_progress: Callable[[str, Sequence[Note]], None] = lambda merchant_id, notes: None,
) -> bool:
    """Credit the next rows of a merchant's oldest unfinished bulk credit. Return whether there may be more to do.

    `on_progress` receives the merchant and a note for the live feed after the commit.

    Safe to call from any number of workers: the merchant's lock admits one at a time. Raises asyncpg's errors, having written
    nothing.
    """
    async with connection(merchant_id) as conn:
        # If there is nothing to do, take no lock and no ids: how often workers poll must not affect the ids of a seeded world.
        activity = await conn.fetchrow(_SQL["next"], merchant_id)
    if activity is None:
        return False

    async def decide(conn: Connection, unit: UnitOfWork) -> Activity | None:
        activity = await conn.fetchrow(_SQL["next"], merchant_id)
        if activity is None:
            # Another worker finished it while this one waited for the lock. The rollback returns the reserved ids: the number
            # of workers must not affect the ids of a seeded world either.
            raise NothingToDoError(None)
        rows = await conn.fetch(_SQL["rows"], merchant_id, activity["id"], CHUNK)
        outcomes, credits_ = _decide(unit, rows, user_ids_to_fail)
        await credit_wallets(conn, merchant_id, unit.now, credits_, f"bulk credit {activity['id']}")
        await add_credits(conn, unit, credits_)
        return await _write(conn, unit, activity, outcomes, is_done=len(rows) < CHUNK)

    written = await work.run_transaction(ClaimRequest(merchant_id, CHUNK // IDS_PER_PAYOUT + 1), decide)
    if written is None:
        return False
    on_progress(merchant_id, [Note("bulk_credit.progressed", msgspec.to_builtins(written))])
    return True


class _Outcome(msgspec.Struct, omit_defaults=True):
    """The outcome of a row. Defaults are omitted: a chunk has many rows, and PostgreSQL parses the JSON of all of them."""

    line: int
    status: str
    transfer_id: str | None = None
    error: str | None = None


def _decide(
    unit: UnitOfWork, rows: Sequence[Mapping[str, Any]], user_ids_to_fail: Set[str]
) -> tuple[list[_Outcome], list[WalletCredit]]:
    """Return the outcome of each row, and the credits of the rows that succeed."""
    outcomes, credits_ = [], []
    credited: dict[str, Decimal] = {}
    in_wallets = -unit.balances[CREDIT.debit]
    for row in rows:
        line, user_id, amount = row["line"], row["user_id"], Decimal(row["amount"])
        before = credited.get(user_id, row["credited"])
        if before is None:
            outcomes.append(_Outcome(line, "INVALID", error="uuid: user not found"))
        elif user_id in user_ids_to_fail:
            outcomes.append(_Outcome(line, "FAILED", error=f"the credit failed because {FAIL_LIST} lists the user"))
        elif before + amount > MAX_SUM or in_wallets + amount > _MAX_FUNDS:
            # If a total overflowed its column, the chunk would fail forever and block all later files of the merchant.
            limit = MAX_SUM if before + amount > MAX_SUM else _MAX_FUNDS
            subject = "the user's credits" if limit == MAX_SUM else "the total of all wallets"
            outcomes.append(_Outcome(line, "INVALID", error=f"amount: would raise {subject} above {limit}"))
        else:
            credited[user_id] = before + amount
            in_wallets += amount
            credit = WalletCredit(unit.ids.next(), user_id, row["amount"], line)
            credits_.append(credit)
            outcomes.append(_Outcome(line, "SUCCEEDED", credit.transfer_id))
    return outcomes, credits_


async def _write(
    conn: Connection,
    unit: UnitOfWork,
    activity: Mapping[str, Any],
    outcomes: Sequence[_Outcome],
    *,
    is_done: bool,
) -> Activity:
    if outcomes:
        by_line = msgspec.json.encode({outcome.line: outcome for outcome in outcomes}).decode()
        first, last = outcomes[0].line, outcomes[-1].line
        written = await conn.execute(_SQL["write_rows"], unit.merchant_id, activity["id"], first, last, by_line)
        if written != f"UPDATE {len(outcomes)}":
            raise RuntimeError("the pending rows of a bulk credit changed while its merchant was locked")
    statuses = [outcome.status for outcome in outcomes]
    succeeded = activity["succeeded"] + statuses.count("SUCCEEDED")
    failed = activity["failed"] + statuses.count("FAILED")
    status = status_when_done(activity["total"], succeeded, failed) if is_done else "PROCESSING"
    completed_at: datetime | None = unit.now if is_done else None
    record = await conn.fetchrow(
        _SQL["write"],
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
    return to_activity(record)


def _completed(unit: UnitOfWork, record: Mapping[str, Any]) -> NewEvent:
    event_id, event_type = unit.ids.next(), "bulk_credit.completed"
    return NewEvent(
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
        traceparent=record["traceparent"],
    )
