"""Recompute every invariant of a merchant's ledger from its entries, while the merchant keeps working.

The audit takes no lock. It reads a small merchant in one database snapshot. It reads a large one window by window, each
statement in its own snapshot, so that no snapshot holds up the vacuum. Every window is consistent: transfers and events never
change, and a payout changes together with its timeline.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from sandbox.domain.errors import CONTENTION, Problem, unavailable
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.ledger import LOCKED, MOVEMENTS
from sandbox.domain.payout_states import HOLDS_FUNDS, STATUSES, TRANSITIONS
from sandbox.domain.user import total_field_for
from sandbox.http.operation import get
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import RETRYABLE, consistent_read, plan_by_statistics, read_transaction
from sandbox.worlds.audit import checks as audit_sql

Reader: TypeAlias = "asyncpg.Connection[Any] | Connection"
MAX_PROBLEMS_SHOWN: Final = 20
MAX_TRANSFERS_PER_SNAPSHOT: Final = 100_000
"""Maximum transfers of a merchant that is read in one snapshot. More would hold up the vacuum for minutes, not seconds."""
TRANSFERS_PER_WINDOW: Final = 50_000
PAYOUTS_PER_WINDOW: Final = 10_000
KEYS_PER_WINDOW: Final = 10_000
IDS_PER_WINDOW: Final = 10_000
"""Different referenced ids in one statement of REFERENCES."""
_STATEMENT_SECONDS: Final = 300.0
"""Timeout of a statement. Only a database that hangs reaches it."""
_ATTEMPTS: Final = 3
"""The audit conflicts with no ordinary work, but a change of the schema can abort it."""

CHECKS: Final = {
    "balances_match_transfers": "Every account's balance equals its credits minus its debits.",
    "running_balances_chain": "Every transfer's balances follow from the previous transfer on each of its accounts.",
    "transfers_are_sound": "Every transfer moves a positive amount between the two accounts that its reason requires, and "
    "names its payout if it belongs to one.",
    "accounts_sum_to_zero": "The balances of all accounts add up to zero.",
    "locked_matches_payouts": "The LOCKED account holds exactly the total of the payouts in flight.",
    "timeline_without_holes": "Every payout's changes are numbered without gaps, and each starts where the previous one ended.",
    "timeline_ends_in_status": "Every payout's status is the status after its last change.",
    "changes_are_legal": "Every status change is allowed, and its event has the right type.",
    "changes_move_money": "Every status change made exactly the transfer that it requires, of the payout's full amount.",
    "transfers_have_their_event": "Every transfer of a payout belongs to exactly one event of that payout.",
    "successes_have_a_reference": "Every payout in SUCCESS has a psp_reference.",
    "wallets_match_sums": "Every wallet's balance equals its user's totals.",
    "sums_match_transfers": "Every user's totals match the transfers of the user's wallet.",
    "sums_match_payouts": "Every user's requested, approved and paid totals match the user's payouts.",
    "sales_are_paid_once": "Every sale's advance and final amounts match its payments, and each payment matches its transfer.",
    "bulk_credits_have_transfers": "Every credited row of a bulk credit has exactly one transfer.",
    "idempotency_names_payouts": "Every payout that an idempotency key refers to exists.",
    "references_exist": "Every payout, event, delivery, user and bulk credit that another row refers to exists.",
}
"""The checks in the order of the report, each with the invariant that it verifies."""


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
        found += problems[: MAX_PROBLEMS_SHOWN - len(found)]

    def report(self) -> AuditReport:
        checks = [Check(name, not found, CHECKS[name], found) for name, found in self.problems.items()]
        return AuditReport(all(check.ok for check in checks), checks)


class AuditService:
    """The operation that audits a merchant."""

    @get(
        "/sandbox/v1/audit",
        "Audit the ledger",
        {200: AuditReport},
        takes_turns=True,
        description="Recomputes every invariant from the ledger's entries. Responds with 200 even if checks "
        "fail: see `ok`. The merchant stays usable during the audit.",
        psp="audit",
    )
    async def audit(self, merchant_id: str) -> AuditReport:
        """Audit a merchant's ledger, as the function `audit` does."""
        return await audit(merchant_id)


async def audit(merchant_id: str) -> AuditReport:
    """Audit a merchant's ledger.

    Raises NOT_FOUND if the merchant was deleted, UNAVAILABLE if PostgreSQL keeps aborting the audit, CONNECTION_ERRORS.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(*RETRYABLE):
            return await _audit(merchant_id)
    raise unavailable(CONTENTION)


async def _audit(merchant_id: str) -> AuditReport:
    async with consistent_read(merchant_id) as conn:
        await _plan_joins(conn)
        if not await conn.fetchval("SELECT EXISTS (SELECT 1 FROM merchants WHERE merchant_id = $1)", merchant_id):
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        count = await conn.fetchval(
            "SELECT count(*) FROM (SELECT 1 FROM transfers WHERE merchant_id = $1 LIMIT $2) t",
            merchant_id,
            MAX_TRANSFERS_PER_SNAPSHOT + 1,
        )
        if count <= MAX_TRANSFERS_PER_SNAPSHOT:
            return await check(conn, merchant_id)
    async with read_transaction(merchant_id) as conn:
        await _plan_joins(conn)
        return await check(conn, merchant_id)


async def _plan_joins(conn: Connection) -> None:
    """Let the planner use statistics, but not nested loops, until the transaction ends.

    Without statistics, or with those of many small merchants, it would join the changes by nested loops, in quadratic time.
    """
    await plan_by_statistics(conn)
    await conn.execute("SET LOCAL enable_nestloop = off")


async def check(conn: Reader, merchant_id: str) -> AuditReport:
    """Run every check on this connection, in the caller's transaction if there is one."""
    findings = _Findings()
    payout_reasons = sorted({change.movement.reason for change in TRANSITIONS.values() if change.movement is not None})
    movements = list(MOVEMENTS.values())
    unwindowed: Mapping[str, tuple[str, tuple[object, ...]]] = {
        "balances_match_transfers": (audit_sql.BALANCES, ()),
        "accounts_sum_to_zero": (audit_sql.SUM_IS_ZERO, ()),
        "locked_matches_payouts": (audit_sql.LOCKED, (sorted(HOLDS_FUNDS), LOCKED)),
        "transfers_are_sound": (
            audit_sql.TRANSFERS,
            ([m.reason for m in movements], [m.debit for m in movements], [m.credit for m in movements], payout_reasons),
        ),
        "sales_are_paid_once": (audit_sql.SALES, ()),
        "bulk_credits_have_transfers": (audit_sql.BULK_CREDITS, ()),
    }
    for name, (statement, arguments) in unwindowed.items():
        records = await conn.fetch(statement, merchant_id, MAX_PROBLEMS_SHOWN, *arguments, timeout=_STATEMENT_SECONDS)
        findings.add(name, [record[0] for record in records])
    requested, approved, paid = (
        [status for status in STATUSES if total_field_for(status) == place] for place in ("requested", "approved", "paid")
    )
    for name, problem in await conn.fetch(
        audit_sql.USERS, merchant_id, MAX_PROBLEMS_SHOWN, requested, approved, paid, timeout=_STATEMENT_SECONDS
    ):
        findings.add(name, [problem])
    findings.add("running_balances_chain", await _broken_chains(conn, merchant_id))
    await _check_payouts(conn, merchant_id, findings)
    keys = await _problems_by_window(conn, audit_sql.IDEMPOTENCY, merchant_id, "", KEYS_PER_WINDOW)
    findings.add("idempotency_names_payouts", keys)
    for statement in audit_sql.REFERENCES.values():
        findings.add("references_exist", await _problems_by_window(conn, statement, merchant_id, MIN_ID, IDS_PER_WINDOW))
    return findings.report()


async def _broken_chains(conn: Reader, merchant_id: str) -> list[str]:
    """Return problems of transfers whose balances do not follow from the previous ones.

    The first pass reads transfers by id, so by time. If it finds a break, a second pass reads them in commit order, and only
    its problems count: if the clock was set back, ids are not in commit order although the ledger is sound. The counter inside
    the ids gives the commit order, but no index contains it, so that pass comes second.
    """
    problems: list[str] = []
    last: str | None = MIN_ID
    carried: dict[str, Decimal] = {}
    while last is not None and not problems:
        record = await _chain(conn, audit_sql.CHAIN_BY_TIME, merchant_id, last, TRANSFERS_PER_WINDOW, carried)
        problems += record["problems"]
        last = record["last"]
        carried.update(zip(record["accounts"], record["balances"], strict=True))
    if not problems:
        return []
    record = await _chain(conn, audit_sql.CHAIN_BY_COUNTER, merchant_id, MIN_ID, None, {})
    by_counter: list[str] = record["problems"]
    return by_counter


async def _chain(
    conn: Reader, statement: str, merchant_id: str, after: str, limit: int | None, carried: Mapping[str, Decimal]
) -> Mapping[str, Any]:
    record = await conn.fetchrow(
        statement,
        merchant_id,
        MAX_PROBLEMS_SHOWN,
        after,
        limit,
        list(carried),
        list(carried.values()),
        timeout=_STATEMENT_SECONDS,
    )
    assert record is not None
    return dict(record)


async def _check_payouts(conn: Reader, merchant_id: str, findings: _Findings) -> None:
    """Check each payout against its timeline and transfers, one window of payouts at a time."""
    table = [
        (source or "", target, change.event, change.movement.reason if change.movement is not None else "")
        for (source, target), change in TRANSITIONS.items()
    ]
    columns = [list(column) for column in zip(*table, strict=True)]
    columns.append(sorted({reason for *_, reason in table if reason}))
    after = MIN_ID
    while after != MAX_ID:
        record = await conn.fetchrow(audit_sql.LAST_OF_WINDOW, merchant_id, after, PAYOUTS_PER_WINDOW)
        assert record is not None
        # The last window is open-ended, so that it also finds events and transfers of payouts that do not exist.
        last = record["last"] if record["count"] == PAYOUTS_PER_WINDOW else MAX_ID
        for name, problem in await conn.fetch(
            audit_sql.PAYOUTS, merchant_id, MAX_PROBLEMS_SHOWN, after, last, *columns, timeout=_STATEMENT_SECONDS
        ):
            findings.add(name, [problem])
        after = last


async def _problems_by_window(conn: Reader, statement: str, merchant_id: str, after: str, size: int) -> list[str]:
    """Run a statement that returns its window's last key and problems, one window of `size` keys at a time."""
    problems: list[str] = []
    last: str | None = after
    while last is not None:
        record = await conn.fetchrow(statement, merchant_id, MAX_PROBLEMS_SHOWN, last, size, timeout=_STATEMENT_SECONDS)
        assert record is not None
        problems += record["problems"]
        last = record["last"]
    return problems
