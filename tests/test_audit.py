"""The audit finds nothing in what the sandbox did, and finds every way in which its tables could lie.

Each lie is told by a superuser inside a transaction that is rolled back, in a ledger that real commands made.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sandbox.bulk_credit.process import credit_chunk
from sandbox.db.engine import ENGINE, close_pool, open_pool
from sandbox.directory.catalogue import load_directory
from sandbox.ledger import audit as audit_module
from sandbox.ledger.audit import CHECKS, audit, check
from sandbox.ledger.model import wallet_of
from sandbox.ledger.post import open_accounts
from sandbox.merchants.service import MerchantService
from sandbox.payouts.commands import CreatePayout, MovePayout
from sandbox.payouts.requests import CreatePayoutBody, new_payout
from sandbox.payouts.steps import take_due_steps
from sandbox.sales.service import SalesService
from sandbox.scenarios.builtin import load_catalogue
from sandbox.secrets_at_rest import SecretBox
from sandbox.users.commands import RecordTransaction
from sandbox.webhooks.endpoints import EndpointService
from sandbox.work.keyed import run_keyed
from sandbox.work.loop import run_commands
from sandbox.work.unit import Answer, Command, IdempotencyKey, Origin, Unit

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

CATALOGUE = load_catalogue()
DIRECTORY = load_directory()
ORIGIN = Origin("audit-test", "/api/v1/payouts", "http://sandbox.test")
BALANCE = Decimal("1000000.00")


@dataclass(frozen=True)
class Ledger:
    """A merchant that lived a little, and payouts of it by what became of them."""

    merchant_id: str
    succeeded: str
    failed: str
    pending: str
    user: str


async def run(merchant_id: str, *commands: Command) -> Sequence[Answer]:
    answers, _ = await run_commands(merchant_id, commands)
    assert all(answer.status < 300 for answer in answers), [answer.body for answer in answers]
    return answers


def create(reference: str, suffix: str, *, requires_approval: bool = False) -> CreatePayout:
    body = CreatePayoutBody(
        merchant_reference=reference, amount=b'"100.25"', dest_type="BANK", bank_code="HBL",
        account_number="1234567890" + suffix, requires_approval=requires_approval,
    )  # type: ignore[arg-type]  # fmt: skip
    return CreatePayout(new_payout(body, DIRECTORY), CATALOGUE, ORIGIN, IdempotencyKey(reference, reference.encode().ljust(32)))


def move(payout_id: str, verb: str, status: str = "", cause: str = "api") -> MovePayout:
    return MovePayout(payout_id, verb, CATALOGUE, ORIGIN, None, status=status, cause=cause)


async def new_merchant(balance: Decimal | None = BALANCE) -> str:
    box = SecretBox(bytes(32))
    return (await MerchantService(box, EndpointService(box, ())).create("audit", balance, None, None)).merchant_id


@pytest.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[None]:
    ours = ENGINE.pool is None
    if ours:
        await open_pool(database_url, 4)
    yield
    if ours:
        await close_pool()


@pytest.fixture(scope="module")
async def ledger(pool: None) -> Ledger:
    """A merchant whose payouts took every kind of change that needs no waiting."""
    merchant_id = await new_merchant()
    async with audit_module.connection() as conn:
        # Time stands still, so that no worker goes on with it while lies are told.
        await conn.execute("UPDATE merchants SET clock_frozen_at = now() WHERE merchant_id = $1", merchant_id)
    suffixes = ("0001", "0003", "0004", "0005", "0002", "0011", "0012", "0001", "0004")
    created = await run(merchant_id, *(create(f"R{n}", suffix) for n, suffix in enumerate(suffixes)))
    ids = [str(answer.location).rpartition("/")[2] for answer in created]
    answers = await run(
        merchant_id,
        create("approved", "0001", requires_approval=True),
        create("rejected", "0001", requires_approval=True),
    )
    approved, rejected = (str(answer.location).rpartition("/")[2] for answer in answers)
    await run(merchant_id, move(approved, "approve"), move(rejected, "reject"))
    while (await take_due_steps(merchant_id, CATALOGUE, 256))[0]:
        pass
    await run(
        merchant_id,
        move(ids[1], "reinitiate"),
        move(ids[8], "cancel"),
        move(ids[3], "move", "SUCCESS", "ipn"),
        move(ids[7], "move", "RETURNED", "simulation"),
    )
    while (await take_due_steps(merchant_id, CATALOGUE, 256))[0]:
        pass
    return Ledger(merchant_id, succeeded=ids[0], failed=ids[1], pending=ids[2], user=await add_user(merchant_id))


async def add_user(merchant_id: str) -> str:
    """A user who has earned, sold and been credited in bulk."""
    user_id = "00000000-0000-7000-8000-00000000000a"

    async def action(conn: "PoolConnectionProxy[Any]", unit: Unit) -> Answer:
        await conn.execute(
            "INSERT INTO users (merchant_id, id, name, vendor_user_id, earned, spent, credited, advances, finals, requested, "
            "approved, paid, version, created_at, updated_at) VALUES ($1, $2, 'A', 'A', 0, 0, 0, 0, 0, 0, 0, 0, 0, $3, $3)",
            merchant_id, user_id, unit.now,
        )  # fmt: skip
        await open_accounts(conn, merchant_id, unit.now, [wallet_of(user_id)])
        await conn.execute(
            "INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_due, final_due, created_at) "
            "VALUES ($1, $2, $2, 'B', 40, 'PENDING', true, false, $3)",
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
        return Answer(200, b"")

    origin = Origin("test", "/test", "http://127.0.0.1")
    await run_keyed(merchant_id, None, origin, action)
    await run(merchant_id, RecordTransaction(user_id, "EARNED", Decimal("9.00"), None, origin, None))
    await SalesService().run(merchant_id, "ADVANCE", None, origin)
    while (await credit_chunk(merchant_id, frozenset()))[0]:
        pass
    return user_id


@pytest.fixture
async def liar(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A superuser's connection, in a transaction that leaves nothing behind, with foreign keys unwatched."""
    conn = await asyncpg.connect(database_url)
    try:
        await conn.execute("BEGIN")
        await conn.execute("SET LOCAL session_replication_role = replica")
        yield conn
        await conn.execute("ROLLBACK")
    finally:
        await conn.close()


async def test_an_honest_ledger_passes(ledger: Ledger) -> None:
    report = await audit(ledger.merchant_id)
    assert [(c.name, c.problems) for c in report.checks if not c.ok] == []
    assert report.ok
    assert [c.name for c in report.checks] == list(CHECKS)
    assert all(c.detail for c in report.checks)


async def test_an_empty_ledger_passes(pool: None) -> None:
    assert (await audit(await new_merchant(None))).ok


async def test_a_large_ledger_is_read_in_windows(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "SMALL", 3)
    monkeypatch.setattr(audit_module, "TRANSFERS_A_WINDOW", 2)
    monkeypatch.setattr(audit_module, "PAYOUTS_A_WINDOW", 2)
    monkeypatch.setattr(audit_module, "KEYS_A_WINDOW", 2)
    report = await audit(ledger.merchant_id)
    assert [(c.name, c.problems) for c in report.checks if not c.ok] == []


async def test_a_window_carries_the_balances_over(
    ledger: Ledger, liar: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "TRANSFERS_A_WINDOW", 1)
    assert (await check(liar, ledger.merchant_id)).ok
    await liar.execute(
        "UPDATE transfers SET credit_balance_after = 1 WHERE merchant_id = $1 AND payout_id = $2",
        ledger.merchant_id,
        ledger.succeeded,
    )
    report = await check(liar, ledger.merchant_id)
    assert "running_balances_chain" in {c.name for c in report.checks if not c.ok}


async def test_another_merchant_s_lies_are_not_mine(
    ledger: Ledger, pool: None, liar: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    other = await new_merchant()
    await liar.execute("UPDATE accounts SET balance = balance + 7 WHERE merchant_id = $1", ledger.merchant_id)
    assert not (await check(liar, ledger.merchant_id)).ok
    assert (await check(liar, other)).ok


@dataclass(frozen=True)
class Lie:
    """A statement ($1 the merchant, $2 a payout) and the checks that must see it."""

    statement: str
    seen_by: frozenset[str]
    payout: str = "succeeded"
    names: str | None = None
    """What the problem must name: the payout's id ("payout"), or a text."""
    unchecked: bool = False
    """Whether the tables' own constraints must go first, since they would refuse it."""


def lie(statement: str, *seen_by: str, payout: str = "succeeded", names: str | None = None, unchecked: bool = False) -> Lie:
    return Lie(statement, frozenset(seen_by), payout, names, unchecked)


DROP_CHECKS = """
DO $$ DECLARE c record; BEGIN
    FOR c IN SELECT conname, conrelid::regclass AS tab FROM pg_constraint
        WHERE contype = 'c' AND conrelid::regclass::text IN ('transfers', 'payouts')
    LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.tab, c.conname); END LOOP;
END $$
"""
LOCK_OF = "merchant_id = $1 AND payout_id = $2 AND reason = 'PAYOUT_LOCK'"
LIES = {
    "a balance is more than its transfers": lie(
        "UPDATE accounts SET balance = balance + 0.01 "
        "WHERE merchant_id = $1 AND account = 'SETTLEMENT' AND $2::uuid IS NOT NULL",
        "balances_match_transfers", "accounts_sum_to_zero", names="SETTLEMENT",
    ),
    "an account is gone": lie(
        "DELETE FROM accounts WHERE merchant_id = $1 AND account = 'FUNDING' AND $2::uuid IS NOT NULL",
        "balances_match_transfers", "accounts_sum_to_zero", names="FUNDING",
    ),
    "two balances are off and their sum is not": lie(
        "UPDATE accounts SET balance = balance + CASE account WHEN 'FUNDING' THEN 5 ELSE -5 END "
        "WHERE merchant_id = $1 AND account IN ('FUNDING', 'SETTLEMENT') AND $2::uuid IS NOT NULL",
        "balances_match_transfers", names="FUNDING",
    ),
    "locked holds more than is in flight": lie(
        "UPDATE accounts SET balance = balance + CASE account WHEN 'LOCKED' THEN 5 ELSE -5 END "
        "WHERE merchant_id = $1 AND account IN ('LOCKED', 'AVAILABLE') AND $2::uuid IS NOT NULL",
        "balances_match_transfers", "locked_matches_payouts", names="LOCKED",
    ),
    "a payout's amount was changed": lie(
        "UPDATE payouts SET amount = amount + 1 WHERE merchant_id = $1 AND id = $2",
        "locked_matches_payouts", "changes_move_money", payout="pending", names="payout",
    ),
    "a running balance on the debit side": lie(
        f"UPDATE transfers SET debit_balance_after = debit_balance_after + 1 WHERE {LOCK_OF}",
        "running_balances_chain", names="AVAILABLE",
    ),
    "a running balance on the credit side": lie(
        f"UPDATE transfers SET credit_balance_after = credit_balance_after + 1 WHERE {LOCK_OF}",
        "running_balances_chain", names="LOCKED",
    ),
    "a transfer's amount": lie(
        f"UPDATE transfers SET amount = amount + 1 WHERE {LOCK_OF}",
        "balances_match_transfers", "running_balances_chain", "changes_move_money", names="payout",
    ),
    "a transfer of nothing": lie(
        f"UPDATE transfers SET amount = 0 WHERE {LOCK_OF}",
        "transfers_are_sound", "balances_match_transfers", "running_balances_chain", "changes_move_money",
        names="moves nothing", unchecked=True,
    ),
    "a transfer to itself": lie(
        f"UPDATE transfers SET credit_account = debit_account WHERE {LOCK_OF}",
        "transfers_are_sound", "balances_match_transfers", "running_balances_chain", names="stays where it is",
        unchecked=True,
    ),
    "a transfer between the wrong accounts": lie(
        f"UPDATE transfers SET debit_account = 'FUNDING' WHERE {LOCK_OF}",
        "transfers_are_sound", "balances_match_transfers", "running_balances_chain", names="wrong accounts",
    ),
    "a transfer that is gone": lie(
        f"DELETE FROM transfers WHERE {LOCK_OF}",
        "balances_match_transfers", "running_balances_chain", "changes_move_money", names="no transfer of this payout",
    ),
    "a transfer of another reason": lie(
        f"UPDATE transfers SET reason = 'PAYOUT_RELEASE' WHERE {LOCK_OF}",
        "transfers_are_sound", "changes_move_money", names="PAYOUT_LOCK",
    ),
    "a transfer that forgot its payout": lie(
        f"UPDATE transfers SET payout_id = NULL WHERE {LOCK_OF}",
        "transfers_are_sound", "changes_move_money", names="names no payout",
    ),
    "a transfer that no event names": lie(
        "UPDATE events SET transfer_id = NULL WHERE merchant_id = $1 AND payout_id = $2 AND change = 0",
        "transfers_have_their_event", "changes_move_money", names="named by 0 events",
    ),
    "a transfer that two events name": lie(
        "UPDATE events e SET transfer_id = f.transfer_id FROM events f WHERE f.merchant_id = $1 AND f.payout_id = $2 "
        "AND f.change = 0 AND e.merchant_id = $1 AND e.payout_id = $2 AND e.change = 1",
        "transfers_have_their_event", "changes_move_money", names="named by 2 events",
    ),
    "an event that names another payout's transfer": lie(
        "UPDATE events e SET transfer_id = t.id FROM transfers t WHERE e.merchant_id = $1 AND e.payout_id = $2 "
        "AND e.change = 0 AND t.merchant_id = $1 AND t.payout_id <> $2 AND t.reason = 'PAYOUT_LOCK'",
        "transfers_have_their_event", "changes_move_money", names="payout",
    ),
    "a change in the middle is gone": lie(
        "DELETE FROM events WHERE merchant_id = $1 AND payout_id = $2 AND change = 1",
        "timeline_without_holes", names="payout",
    ),
    "the last change is gone": lie(
        "DELETE FROM events WHERE merchant_id = $1 AND payout_id = $2 AND change = 2",
        "timeline_without_holes", "timeline_ends_in_status", "transfers_have_their_event", names="payout",
    ),
    "the whole timeline is gone": lie(
        "DELETE FROM events WHERE merchant_id = $1 AND payout_id = $2",
        "timeline_without_holes", "transfers_have_their_event", names="its timeline 0",
    ),
    "a change is numbered too high": lie(
        "UPDATE events SET change = 9 WHERE merchant_id = $1 AND payout_id = $2 AND change = 2",
        "timeline_without_holes", names="is change 9, and should be 2",
    ),
    "the count of changes is wrong": lie(
        "UPDATE payouts SET changes = changes + 1 WHERE merchant_id = $1 AND id = $2",
        "timeline_without_holes", names="payout",
    ),
    "a change does not follow": lie(
        "UPDATE events SET from_status = 'RETRY' WHERE merchant_id = $1 AND payout_id = $2 AND change = 1",
        "timeline_without_holes", names="comes from RETRY",
    ),
    "a first change that comes from somewhere": lie(
        "UPDATE events SET from_status = 'REQUESTED' WHERE merchant_id = $1 AND payout_id = $2 AND change = 0",
        "timeline_without_holes", "changes_move_money", names="comes from REQUESTED",
    ),
    "a status that its timeline does not know": lie(
        "UPDATE payouts SET status = 'FAILED' WHERE merchant_id = $1 AND id = $2",
        "timeline_ends_in_status", names="ends in SUCCESS",
    ),
    "a payout in flight that is settled": lie(
        "UPDATE payouts SET status = 'PROCESSING' WHERE merchant_id = $1 AND id = $2",
        "timeline_ends_in_status", "locked_matches_payouts", names="payout",
    ),
    "a change that no rule allows": lie(
        "UPDATE events SET to_status = 'IN_REVIEW', from_status = 'REQUESTED' "
        "WHERE merchant_id = $1 AND payout_id = $2 AND change = 1",
        "changes_are_legal", "timeline_without_holes", names="from REQUESTED to IN_REVIEW",
    ),
    "an event of the wrong type": lie(
        "UPDATE events SET type = 'payout.failed' WHERE merchant_id = $1 AND payout_id = $2 AND change = 2",
        "changes_are_legal", names="payout.failed",
    ),
    "a success without a reference": lie(
        "UPDATE payouts SET psp_reference = NULL WHERE merchant_id = $1 AND id = $2",
        "successes_have_a_reference", names="payout", unchecked=True,
    ),
    "a payout that is gone": lie(
        "DELETE FROM payouts WHERE merchant_id = $1 AND id = $2",
        "timeline_without_holes", "idempotency_names_payouts", names="payout",
    ),
    "an idempotency key that names no id": lie(
        "UPDATE idempotency_keys SET location = '/api/v1/payouts/none' "
        "WHERE merchant_id = $1 AND location LIKE '%' || $2::text",
        "idempotency_names_payouts", names="/api/v1/payouts/none",
    ),
    "a user who earned more than came in": lie(
        "UPDATE users SET earned = earned + 1 WHERE merchant_id = $1 AND id = $2",
        "wallets_match_sums", "sums_match_transfers", payout="user", names="payout",
    ),
    "a user who asked for what no payout asks for": lie(
        "UPDATE users SET requested = requested + 1 WHERE merchant_id = $1 AND id = $2",
        "sums_match_payouts", payout="user", names="payout",
    ),
    "a sale that tells of more than was paid": lie(
        "UPDATE sales SET advance_amount = advance_amount + 1 WHERE merchant_id = $1 AND user_id = $2",
        "sales_are_paid_once", payout="user", names="advance of 5.00",
    ),
    "a bulk credit that counts a row too few": lie(
        "UPDATE bulk_credits SET succeeded = 0 WHERE merchant_id = $1 AND id = $2",
        "bulk_credits_have_transfers", payout="user", names="payout",
    ),
}  # fmt: skip


@pytest.mark.parametrize("told", LIES.values(), ids=LIES.keys())
async def test_a_lie_is_found_by_its_checks_and_by_no_other(
    told: Lie, ledger: Ledger, liar: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    payout_id = getattr(ledger, told.payout)
    if told.unchecked:
        await liar.execute(DROP_CHECKS)
    changed = await liar.execute(told.statement, ledger.merchant_id, payout_id)
    assert not changed.endswith(" 0"), "the lie was not told"
    report = await check(liar, ledger.merchant_id)
    found = {c.name: c.problems for c in report.checks if not c.ok}
    assert found.keys() == told.seen_by
    assert not report.ok
    expected = payout_id if told.names == "payout" else told.names
    assert any(expected in problem for problems in found.values() for problem in problems), found


def test_every_check_has_a_lie() -> None:
    assert frozenset().union(*(told.seen_by for told in LIES.values())) == CHECKS.keys()


async def test_only_the_first_problems_are_told(ledger: Ledger, liar: "asyncpg.Connection[asyncpg.Record]") -> None:
    await liar.execute("UPDATE events SET type = 'payout.odd' WHERE merchant_id = $1", ledger.merchant_id)
    report = await check(liar, ledger.merchant_id)
    legal = next(c for c in report.checks if c.name == "changes_are_legal")
    assert len(legal.problems) == audit_module.PROBLEMS_SHOWN


async def test_a_clock_that_was_set_back_is_no_lie(pool: None) -> None:
    merchant_id = await new_merchant()
    await run(merchant_id, create("before", "0004"))
    async with audit_module.connection() as conn:
        await conn.execute("UPDATE merchants SET clock_offset = interval '-1 day' WHERE merchant_id = $1", merchant_id)
    await run(merchant_id, create("after", "0004"), create("after that", "0001"))
    await take_due_steps(merchant_id, CATALOGUE, 256)
    report = await audit(merchant_id)
    assert [(c.name, c.problems) for c in report.checks if not c.ok] == []
