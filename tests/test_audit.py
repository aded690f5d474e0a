"""The audit reports no problem in a ledger that real commands created, and finds every corruption of it.

A superuser corrupts the tables in a transaction that is then rolled back.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from msgspec import Struct, structs

from sandbox.domain.errors import Problem
from sandbox.domain.ledger import wallet_of
from sandbox.domain.payout_commands import CreatePayout, TransitionPayout
from sandbox.domain.unit import CommandResult, IdempotencyKey, UnitOfWork
from sandbox.infrastructure.db.engine import close_pool, connection, open_pool
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.payouts.directory.loader import load_directory
from sandbox.payouts.requests import CreatePayoutBody, new_payout
from sandbox.payouts.steps import take_due_steps
from sandbox.unit_of_work.ledger import open_accounts
from sandbox.users.bulk_credit.process import credit_chunk
from sandbox.users.commands import RecordTransaction
from sandbox.users.sales.service import SalesService
from sandbox.webhooks.endpoints.service import EndpointService
from sandbox.worlds.audit import service as audit_module
from sandbox.worlds.audit.checks import REFERENCES
from sandbox.worlds.audit.service import CHECKS, AuditReport, audit, check
from sandbox.worlds.merchants.requests import MerchantSpec
from sandbox.worlds.merchants.service import MerchantService
from tests.harness.audit_corruptions import COPIES, CORRUPTIONS, DANGLING_REFERENCES, Corruption
from tests.harness.work import request_of, units_of_work

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

WORK = units_of_work()
DIRECTORY = load_directory()
BALANCE = Decimal("1000000.00")


@dataclass(frozen=True)
class Ledger:
    """A merchant with some history: its payouts by outcome, and a user."""

    merchant_id: str
    succeeded: str
    failed: str
    pending: str
    user: str


def _replace(command: Any, **changes: Any) -> Any:
    """Return a command with these fields changed. Some commands are structs, others are dataclasses."""
    return (structs.replace if isinstance(command, Struct) else replace)(command, **changes)


async def run(merchant_id: str, *commands: CreatePayout | TransitionPayout | RecordTransaction) -> Sequence[CommandResult]:
    for_merchant = [
        _replace(command, context=structs.replace(command.context, merchant_id=merchant_id)) for command in commands
    ]
    results = await asyncio.gather(*(WORK.submit(command) for command in for_merchant))
    assert all(result.status < 300 for result in results), [result.body for result in results]
    return results


def create(reference: str, suffix: str, *, requires_approval: bool = False) -> CreatePayout:
    body = CreatePayoutBody(
        merchant_reference=reference, amount=b'"100.25"', dest_type="BANK", bank_code="HBL",
        account_number="1234567890" + suffix, requires_approval=requires_approval,
    )  # type: ignore[arg-type]  # fmt: skip
    key = IdempotencyKey(reference, reference.encode().ljust(32))
    return CreatePayout(request_of("", key), new_payout(body, DIRECTORY))


def transition(payout_id: str, action: str, status: str = "", cause: str = "api") -> TransitionPayout:
    return TransitionPayout(request_of(""), payout_id, action, status=status, cause=cause)


async def new_merchant(balance: Decimal | None = BALANCE) -> str:
    box = SecretBox(bytes(32))
    return (
        await MerchantService(WORK, box, EndpointService(WORK, box, ()), "http://ipn.example").create(
            MerchantSpec("audit", balance)
        )
    ).merchant_id


@pytest.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[None]:
    await open_pool(database_url, 4)
    yield
    await close_pool()


@pytest.fixture(scope="module")
async def ledger(pool: None) -> Ledger:
    """Create a merchant whose payouts went through every kind of change that has no delay."""
    merchant_id = await new_merchant()
    async with connection(merchant_id) as conn:
        # Freeze the clock, so that no worker changes the ledger during the tests.
        await conn.execute("UPDATE worlds SET clock_frozen_at = now() WHERE merchant_id = $1", merchant_id)
    suffixes = ("0001", "0003", "0004", "0005", "0002", "0011", "0012", "0001", "0004")
    created = await run(merchant_id, *(create(f"R{n}", suffix) for n, suffix in enumerate(suffixes)))
    ids = [str(result.location).rpartition("/")[2] for result in created]
    with_approval = await run(
        merchant_id,
        create("approved", "0001", requires_approval=True),
        create("rejected", "0001", requires_approval=True),
    )
    approved, rejected = (str(result.location).rpartition("/")[2] for result in with_approval)
    await run(merchant_id, transition(approved, "approve"), transition(rejected, "reject"))
    while any((await take_due_steps(WORK, [merchant_id], lock_timeout=60)).values()):
        pass
    await run(
        merchant_id,
        transition(ids[1], "reinitiate"),
        transition(ids[8], "cancel"),
        transition(ids[3], "transition", "SUCCESS", "ipn"),
        transition(ids[7], "transition", "RETURNED", "simulation"),
    )
    while any((await take_due_steps(WORK, [merchant_id], lock_timeout=60)).values()):
        pass
    return Ledger(merchant_id, succeeded=ids[0], failed=ids[1], pending=ids[2], user=await add_user(merchant_id))


async def add_user(merchant_id: str) -> str:
    """Create a user with earnings, a sale and a bulk credit. Return its id."""
    user_id = "00000000-0000-7000-8000-00000000000a"

    async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
        await conn.execute(
            "INSERT INTO users (merchant_id, id, name, vendor_user_id, earned, spent, credited, advances, finals, requested, "
            "approved, paid, version, created_at, updated_at) VALUES ($1, $2, 'A', 'A', 0, 0, 0, 0, 0, 0, 0, 0, 0, $3, $3)",
            merchant_id, user_id, unit.now,
        )  # fmt: skip
        await open_accounts(conn, merchant_id, unit.now, [wallet_of(user_id)])
        await conn.execute(
            "INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_due, final_due, due_at, created_at) "
            "VALUES ($1, $2, $2, 'B', 40, 'PENDING', true, false, $3, $3)",
            merchant_id, user_id, unit.now,
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO bulk_credits (merchant_id, id, status, total, invalid, duplicates, succeeded, failed, request_id, "
            "created_at, updated_at) VALUES ($1, $2, 'UPLOADED', 1, 0, 0, 0, 0, 'r', $3, $3)",
            merchant_id, user_id, unit.now,
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO bulk_credit_items (merchant_id, activity_id, line, user_id, amount, status) "
            "VALUES ($1, $2, 2, $3, '5.00', 'PENDING')",
            merchant_id, user_id, user_id,
        )  # fmt: skip
        return CommandResult(200, b"")

    context = request_of(merchant_id)
    await WORK.run(context, action)
    await run(merchant_id, RecordTransaction(context, user_id, "EARNED", Decimal("9.00"), None))
    await SalesService(WORK).run(context, "ADVANCE")
    while await credit_chunk(WORK, merchant_id, frozenset()):
        pass
    return user_id


@pytest.fixture
async def superuser(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Yield a superuser's connection, without foreign key checks, in a transaction that is rolled back."""
    conn = await asyncpg.connect(database_url)
    try:
        await conn.execute("BEGIN")
        # Citus forwards the second setting to the nodes of a distributed database. PostgreSQL alone has no use for the first.
        await conn.execute("SET LOCAL citus.propagate_set_commands = 'local'")
        await conn.execute("SET LOCAL session_replication_role = replica")
        yield conn
        await conn.execute("ROLLBACK")
    finally:
        await conn.close()


async def test_an_intact_ledger_passes(ledger: Ledger) -> None:
    report = await audit(ledger.merchant_id)
    assert [(c.name, c.problems) for c in report.checks if not c.ok] == []
    assert report.ok
    assert [c.name for c in report.checks] == list(CHECKS)
    assert all(c.detail for c in report.checks)


async def test_an_empty_ledger_passes(pool: None) -> None:
    assert (await audit(await new_merchant(None))).ok


async def test_a_large_ledger_that_is_read_in_windows_passes(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "MAX_TRANSFERS_PER_SNAPSHOT", 3)
    monkeypatch.setattr(audit_module, "TRANSFERS_PER_WINDOW", 2)
    monkeypatch.setattr(audit_module, "PAYOUTS_PER_WINDOW", 2)
    monkeypatch.setattr(audit_module, "KEYS_PER_WINDOW", 2)
    monkeypatch.setattr(audit_module, "IDS_PER_WINDOW", 2)
    report = await audit(ledger.merchant_id)
    assert [(c.name, c.problems) for c in report.checks if not c.ok] == []


@pytest.mark.parametrize("limit", [100_000, 0])
async def test_no_ledger_is_joined_by_nested_loops(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """If most merchants are small, the planner expects few rows and would join a large merchant's rows with nested loops,
    in quadratic time.
    """
    settings = {}

    async def read_settings(conn: "audit_module.Reader", merchant_id: str) -> AuditReport:
        for name in ("enable_nestloop", "enable_sort", "plan_cache_mode", "transaction_read_only"):
            settings[name] = await conn.fetchval(f"SHOW {name}")
        return await check(conn, merchant_id)

    monkeypatch.setattr(audit_module, "check", read_settings)
    monkeypatch.setattr(audit_module, "MAX_TRANSFERS_PER_SNAPSHOT", limit)
    assert (await audit(ledger.merchant_id)).ok
    assert settings == {"enable_nestloop": "off", "enable_sort": "on", "plan_cache_mode": "auto", "transaction_read_only": "on"}


async def test_running_balances_are_checked_across_windows(
    ledger: Ledger, superuser: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "TRANSFERS_PER_WINDOW", 1)
    assert (await check(superuser, ledger.merchant_id)).ok
    await superuser.execute(
        "UPDATE transfers SET credit_balance_after = 1 WHERE merchant_id = $1 AND payout_id = $2",
        ledger.merchant_id,
        ledger.succeeded,
    )
    report = await check(superuser, ledger.merchant_id)
    assert "running_balances_chain" in {c.name for c in report.checks if not c.ok}


async def test_another_merchants_corruption_is_not_reported(
    ledger: Ledger, pool: None, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    other = await new_merchant()
    await superuser.execute("UPDATE accounts SET balance = balance + 7 WHERE merchant_id = $1", ledger.merchant_id)
    assert not (await check(superuser, ledger.merchant_id)).ok
    assert (await check(superuser, other)).ok


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
async def test_each_corruption_is_found_by_exactly_the_expected_checks(
    corruption: Corruption, ledger: Ledger, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    target_id = getattr(ledger, corruption.target)
    for copy in COPIES if corruption.unchecked else ():
        await superuser.execute(copy, ledger.merchant_id)
    changed = await superuser.execute(corruption.statement, ledger.merchant_id, target_id)
    assert not changed.endswith(" 0"), "the statement must change a row"
    report = await check(superuser, ledger.merchant_id)
    found = {c.name: c.problems for c in report.checks if not c.ok}
    assert found.keys() == corruption.found_by
    assert not report.ok
    expected = target_id if corruption.names == "target" else corruption.names
    assert any(expected in problem for problems in found.values() for problem in problems), found


def test_every_check_has_a_corruption() -> None:
    assert frozenset().union(*(corruption.found_by for corruption in CORRUPTIONS.values())) == CHECKS.keys()
    assert DANGLING_REFERENCES.keys() == REFERENCES.keys()


async def test_a_dangling_reference_in_any_window_is_found(
    ledger: Ledger, superuser: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "IDS_PER_WINDOW", 1)
    await superuser.execute("DELETE FROM payouts WHERE merchant_id = $1", ledger.merchant_id)
    report = await check(superuser, ledger.merchant_id)
    problems = next(c.problems for c in report.checks if c.name == "references_exist")
    count = await superuser.fetchval(
        "SELECT count(DISTINCT payout_id) FROM transfers WHERE merchant_id = $1 AND payout_id IS NOT NULL", ledger.merchant_id
    )
    assert sum("transfers.payout_id" in problem for problem in problems) == count


async def test_a_check_shows_a_limited_number_of_problems(
    ledger: Ledger, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await superuser.execute("UPDATE events SET type = 'payout.odd' WHERE merchant_id = $1", ledger.merchant_id)
    report = await check(superuser, ledger.merchant_id)
    legal = next(c for c in report.checks if c.name == "changes_are_legal")
    assert len(legal.problems) == audit_module.MAX_PROBLEMS_SHOWN


async def test_lock_conflicts_are_retried_and_then_reported_as_503(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    conflicts = [asyncpg.DeadlockDetectedError(), asyncpg.LockNotAvailableError()]

    async def check_with_conflicts(conn: "PoolConnectionProxy[Any]", merchant_id: str) -> AuditReport:
        if conflicts:
            raise conflicts.pop()
        return await check(conn, merchant_id)

    monkeypatch.setattr(audit_module, "check", check_with_conflicts)
    assert (await audit(ledger.merchant_id)).ok
    conflicts += [asyncpg.DeadlockDetectedError()] * 3
    with pytest.raises(Problem) as refused:
        await audit(ledger.merchant_id)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
    assert not conflicts


async def test_a_clock_that_was_set_back_is_not_reported_as_corruption(pool: None) -> None:
    merchant_id = await new_merchant()
    await run(merchant_id, create("before", "0004"))
    async with connection(merchant_id) as conn:
        await conn.execute("UPDATE worlds SET clock_offset = interval '-1 day' WHERE merchant_id = $1", merchant_id)
    await run(merchant_id, create("after", "0004"), create("after that", "0001"))
    await take_due_steps(WORK, [merchant_id], lock_timeout=60)
    report = await audit(merchant_id)
    assert [(c.name, c.problems) for c in report.checks if not c.ok] == []
