"""Recompute every invariant of a merchant's ledger from its entries, while the merchant goes on working.

The audit takes no lock. A small merchant is read in one snapshot, all of one moment. A large one is read window by
window, each statement a snapshot of its own, so that none keeps the vacuum waiting: transfers and events are never
rewritten, and a payout changes together with its timeline, so every window is whole in itself.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.audit import checks as audit_sql
from sandbox.db.engine import RETRYABLE, connection, consistent_read, db_errors_as_503, plan_by_statistics
from sandbox.domain.errors import CONTENTION, Problem, unavailable
from sandbox.domain.ids import LARGEST_ID, SMALLEST_ID
from sandbox.domain.ledger import LOCKED, MOVEMENTS
from sandbox.domain.payout_states import HOLDS_FUNDS, STATUSES, TRANSITIONS
from sandbox.domain.user import sum_for

if TYPE_CHECKING:
    from asyncpg import Connection
    from asyncpg.pool import PoolConnectionProxy

    Reader = Connection[Any] | PoolConnectionProxy[Any]

PROBLEMS_SHOWN: Final = 20
SMALL: Final = 100_000
"""Transfers up to which a merchant is read in one snapshot: seconds, and not minutes, that the vacuum waits."""
TRANSFERS_A_WINDOW: Final = 50_000
PAYOUTS_A_WINDOW: Final = 10_000
KEYS_A_WINDOW: Final = 10_000
_STATEMENT_SECONDS: Final = 300.0
"""No statement is near it; a store that hangs ends the audit."""
_ATTEMPTS: Final = 3
"""It takes no lock that work wants, but a change of the tables themselves may be in its way, and end it."""

CHECKS: Final = {
    "balances_match_transfers": "Every account's balance is the sum of its credits minus its debits.",
    "running_balances_chain": "Every transfer's balances follow from the previous transfer on each account.",
    "transfers_are_sound": "Every transfer moves more than zero between the two accounts of its reason, and names its "
    "payout if it is for one.",
    "accounts_sum_to_zero": "The balances of all accounts add up to zero.",
    "locked_matches_payouts": "LOCKED holds exactly the amounts of the payouts in flight.",
    "timeline_without_holes": "Every payout's changes are numbered without gaps, and each starts where the previous one ended.",
    "timeline_ends_in_status": "Every payout's status is that of its last change.",
    "changes_are_legal": "Every change is allowed by the table of states and matches its event.",
    "changes_move_money": "Every change moved exactly the money that it should.",
    "transfers_have_their_event": "Every transfer for a payout is named by exactly one event of that payout.",
    "successes_have_a_reference": "Every payout in SUCCESS has a psp_reference.",
    "wallets_match_sums": "Every wallet's balance equals its user's totals.",
    "sums_match_transfers": "Every user's totals match the transfers through the wallet.",
    "sums_match_payouts": "Every user's requested, approved and paid totals match the user's payouts.",
    "sales_are_paid_once": "Every sale's advance and final payment match the sale, each with its transfer.",
    "bulk_credits_have_transfers": "Every credited row of a bulk credit has exactly one transfer.",
    "idempotency_names_payouts": "Every idempotency key that stands for a payout names one that exists.",
}
"""The checks, in the order of the report, and what each says when all is well."""


class Check(msgspec.Struct):
    """The result of one check. `problems` lists the first few violations, with their ids."""

    name: str
    ok: bool
    detail: str
    problems: list[str]


class AuditReport(msgspec.Struct):
    """All checks of a merchant's ledger; `ok` if all passed."""

    ok: bool
    checks: list[Check]


@dataclass(slots=True)
class _Findings:
    problems: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in CHECKS})

    def add(self, name: str, problems: Sequence[str]) -> None:
        found = self.problems[name]
        found += problems[: PROBLEMS_SHOWN - len(found)]

    def report(self) -> AuditReport:
        checks = [Check(name, not found, CHECKS[name], found) for name, found in self.problems.items()]
        return AuditReport(all(check.ok for check in checks), checks)


async def audit(merchant_id: str) -> AuditReport:
    """Audit a merchant's ledger.

    Raises NOT_FOUND if the merchant is gone, UNAVAILABLE if PostgreSQL is away or others are in the way again and again.
    """
    async with db_errors_as_503():
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(*RETRYABLE):
                return await _audit(merchant_id)
    raise unavailable(CONTENTION)


async def _audit(merchant_id: str) -> AuditReport:
    async with consistent_read() as conn:
        await plan_by_statistics(conn)
        # A young store knows no statistics yet, and would look for each change among all the others, one by one.
        await conn.execute("SET LOCAL enable_nestloop = off")
        if not await conn.fetchval("SELECT EXISTS (SELECT FROM merchants WHERE merchant_id = $1)", merchant_id):
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        count = await conn.fetchval(
            "SELECT count(*) FROM (SELECT FROM transfers WHERE merchant_id = $1 LIMIT $2) t", merchant_id, SMALL + 1
        )
        if count <= SMALL:
            return await check(conn, merchant_id)
    async with connection() as conn:
        return await check(conn, merchant_id)


async def check(conn: "Reader", merchant_id: str) -> AuditReport:
    """Run every check on this connection, in whatever transaction it is in."""
    found = _Findings()
    reasons = sorted({change.movement.reason for change in TRANSITIONS.values() if change.movement is not None})
    movements = list(MOVEMENTS.values())
    whole: Mapping[str, tuple[str, tuple[object, ...]]] = {
        "balances_match_transfers": (audit_sql.BALANCES, ()),
        "accounts_sum_to_zero": (audit_sql.SUM_IS_ZERO, ()),
        "locked_matches_payouts": (audit_sql.LOCKED, (sorted(HOLDS_FUNDS), LOCKED)),
        "transfers_are_sound": (
            audit_sql.TRANSFERS,
            ([m.reason for m in movements], [m.debit for m in movements], [m.credit for m in movements], reasons),
        ),
        "sales_are_paid_once": (audit_sql.SALES, ()),
        "bulk_credits_have_transfers": (audit_sql.BULK_CREDITS, ()),
    }
    for name, (statement, arguments) in whole.items():
        records = await conn.fetch(statement, merchant_id, PROBLEMS_SHOWN, *arguments, timeout=_STATEMENT_SECONDS)
        found.add(name, [record[0] for record in records])
    requested, approved, paid = (
        [status for status in STATUSES if sum_for(status) == place] for place in ("requested", "approved", "paid")
    )
    for name, problem in await conn.fetch(
        audit_sql.USERS, merchant_id, PROBLEMS_SHOWN, requested, approved, paid, timeout=_STATEMENT_SECONDS
    ):
        found.add(name, [problem])
    found.add("running_balances_chain", await _broken_chains(conn, merchant_id))
    await _check_payouts(conn, merchant_id, found)
    await _check_keys(conn, merchant_id, found)
    return found.report()


async def _broken_chains(conn: "Reader", merchant_id: str) -> list[str]:
    """Transfers whose balances do not follow, in the order of time; where that has breaks, in the order of commits.

    Ids begin with the time, and a clock that was set back puts later transfers before earlier ones: no break of the
    ledger. The counter in the ids knows the order of commits, but no index has it, so it is asked second.
    """
    problems: list[str] = []
    last: str | None = SMALLEST_ID
    carried: dict[str, Decimal] = {}
    while last is not None and not problems:
        record = await _chain(conn, audit_sql.CHAIN_BY_TIME, merchant_id, last, TRANSFERS_A_WINDOW, carried)
        problems += record["problems"]
        last = record["last"]
        carried.update(zip(record["accounts"], record["balances"], strict=True))
    if not problems:
        return []
    record = await _chain(conn, audit_sql.CHAIN_BY_COUNTER, merchant_id, SMALLEST_ID, None, {})
    by_counter: list[str] = record["problems"]
    return by_counter


async def _chain(
    conn: "Reader", statement: str, merchant_id: str, behind: str, limit: int | None, carried: Mapping[str, Decimal]
) -> Mapping[str, Any]:
    record = await conn.fetchrow(
        statement,
        merchant_id,
        PROBLEMS_SHOWN,
        behind,
        limit,
        list(carried),
        list(carried.values()),
        timeout=_STATEMENT_SECONDS,
    )
    assert record is not None
    return dict(record)


async def _check_payouts(conn: "Reader", merchant_id: str, found: _Findings) -> None:
    """Check each payout against its timeline and its transfers, a window of payouts at a time."""
    table = [
        (source or "", target, change.event, change.movement.reason if change.movement is not None else "")
        for (source, target), change in TRANSITIONS.items()
    ]
    columns = [list(column) for column in zip(*table, strict=True)]
    columns.append(sorted({reason for *_, reason in table if reason}))
    behind = SMALLEST_ID
    while behind != LARGEST_ID:
        record = await conn.fetchrow(audit_sql.LAST_OF_WINDOW, merchant_id, behind, PAYOUTS_A_WINDOW)
        assert record is not None
        # The last window has no end, and so finds what names a payout that is not there.
        last = record["last"] if record["count"] == PAYOUTS_A_WINDOW else LARGEST_ID
        for name, problem in await conn.fetch(
            audit_sql.PAYOUTS, merchant_id, PROBLEMS_SHOWN, behind, last, *columns, timeout=_STATEMENT_SECONDS
        ):
            found.add(name, [problem])
        behind = last


async def _check_keys(conn: "Reader", merchant_id: str, found: _Findings) -> None:
    """Check that what idempotency keys name is there, a window of keys at a time."""
    behind: str | None = ""
    while behind is not None:
        record = await conn.fetchrow(
            audit_sql.IDEMPOTENCY, merchant_id, PROBLEMS_SHOWN, behind, KEYS_A_WINDOW, timeout=_STATEMENT_SECONDS
        )
        assert record is not None
        found.add("idempotency_names_payouts", record["problems"])
        behind = record["last"]
