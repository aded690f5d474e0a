"""Pay the open sales of one merchant, one chunk at a time, under the merchant's lock.

Each sale records whether its advance or its final payment is open, and when it is due. So no sale is paid twice, even if a run
is repeated or its process dies. A run that a request starts pays all open sales; a scheduled one pays those that are due.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Final

from sandbox.domain import ledger as ledger
from sandbox.domain.enumerations import SalePaymentKind
from sandbox.domain.money import ZERO
from sandbox.domain.sale import (
    ADVANCE,
    COLUMNS,
    FINAL,
    RunResult,
    Sale,
    due_kind,
    failure_of,
    next_run,
    payment_of,
    to_sale,
)
from sandbox.domain.scenario_engine import Facts
from sandbox.domain.unit import IDS_PER_PAYOUT, UnitOfWork
from sandbox.domain.user import UserRow
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.users import read_users

CHUNK: Final = 1000
"""Maximum number of sales paid in one transaction. It bounds how long the merchant's other requests wait for the lock."""
WEIGHT: Final = CHUNK // IDS_PER_PAYOUT + 1
"""The weight of a claim whose unit pays a chunk: each payment needs one id."""

_SQL: Final = read_statements(__name__, columns=COLUMNS)
_NAMES: Final = {
    ADVANCE: {"due": "advance_due", "paid": "advance_amount", "other": "final_due"},
    FINAL: {"due": "final_due", "paid": "final_amount", "other": "advance_due"},
}
_OPEN: Final = {kind: _SQL["open"].format(**names) for kind, names in _NAMES.items()}
_RECORD_ATTEMPTS: Final = {kind: _SQL["record_attempts"].format(**names) for kind, names in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to pay for a sale. `error` says why it failed; None means that it succeeded."""

    kind: SalePaymentKind
    sale_id: str
    user_id: str
    amount: Decimal
    transfer_id: str | None
    error: str | None


async def pay_open(
    conn: Connection, unit: UnitOfWork, kind: SalePaymentKind, after_id: str, chunk: int
) -> tuple[list[Attempt], str | None]:
    """Try to pay the next `chunk` open sales with ids above `after_id`, whether they are due or not.

    Return the attempts and the last id, from which the next chunk continues, or None after the last chunk. The caller holds
    the merchant's lock, has read the unit's rules, and writes the unit.
    """
    sales = [to_sale(record) for record in await conn.fetch(_OPEN[kind], unit.merchant_id, after_id, chunk)]
    attempts = await _pay(conn, unit, kind, sales) if sales else []
    return attempts, sales[-1].id if len(sales) == chunk else None


async def pay_due(conn: Connection, unit: UnitOfWork) -> list[Attempt]:
    """Try to pay the sales that are due at the unit's time, earliest first. If there are CHUNK attempts, more may be due.

    The caller holds the merchant's lock, and writes the unit, whose ids must suffice for WEIGHT.
    """
    sales = [to_sale(record) for record in await conn.fetch(_SQL["due"], unit.merchant_id, unit.now, CHUNK)]
    attempts: list[Attempt] = []
    for kind, group in groupby(sales, due_kind):
        assert kind is not None, "the table's CHECKs allow a due time only for an open sale"
        attempts += await _pay(conn, unit, kind, [*group])
    return attempts


async def _pay(conn: Connection, unit: UnitOfWork, kind: SalePaymentKind, sales: Sequence[Sale]) -> list[Attempt]:
    # Do not read users that are already in the unit: it may have changed them.
    await read_users(conn, unit, {sale.user_id for sale in sales}.difference(unit.users))
    attempts = [_try(unit, unit.users[sale.user_id], sale, kind) for sale in sales]
    await conn.execute(
        _RECORD_ATTEMPTS[kind],
        unit.merchant_id,
        [attempt.sale_id for attempt in attempts],
        [attempt.amount if attempt.error is None else None for attempt in attempts],
        [attempt.error for attempt in attempts],
        next_run(kind, unit.now),
    )
    paid = [attempt for attempt in attempts if attempt.error is None]
    await conn.execute(
        _SQL["payments"],
        unit.merchant_id,
        kind,
        unit.now,
        [attempt.sale_id for attempt in paid],
        [attempt.amount for attempt in paid],
        [attempt.transfer_id for attempt in paid],
    )
    return attempts


def add_attempts(total: RunResult, attempts: Sequence[Attempt]) -> RunResult:
    """Return a run's result with these attempts added."""
    paid = [attempt.amount for attempt in attempts if attempt.error is None]
    return RunResult(total.paid + len(paid), total.failed + len(attempts) - len(paid), total.total_amount + sum(paid, ZERO))


def _try(unit: UnitOfWork, user: UserRow, sale: Sale, kind: SalePaymentKind) -> Attempt:
    amount = payment_of(sale, kind)
    facts = Facts(
        amount=abs(amount),
        account_number=user.account_number or "",
        bank_code=user.bank_code,
        wallet_code=user.wallet_code,
        user_id=user.id,
        metadata={"kind": kind, "sale_id": sale.id, "brand": sale.brand},
    )
    # Each attempt draws again for steps with a probability. In a seeded world, the draws are the same each time.
    failure = failure_of(facts, unit.custom_scenarios, f"{sale.id}:{kind}:{sale.attempts}")
    if failure is not None:
        code, scenario = failure
        return Attempt(kind, sale.id, user.id, amount, None, f"{kind} failed: {code} (scenario {scenario})")
    if kind == ADVANCE:
        user.advances += amount
    else:
        user.finals += amount
    transfer_id = None
    if amount != ZERO:
        movement = ledger.ADVANCE if kind == ADVANCE else ledger.FINAL if amount > ZERO else ledger.CLAW_BACK
        transfer_id = unit.transfer(movement, abs(amount), None, f"sale {sale.id}", user.id)
        unit.touch_user(user)
    return Attempt(kind, sale.id, user.id, amount, transfer_id, None)
