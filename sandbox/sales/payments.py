"""Pay the due sales of one merchant, one chunk at a time, under the merchant's lock.

Each sale records whether its advance or its final payment is due. So no sale is paid twice, even if a run is repeated or its
process dies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.rows import update_by_key
from sandbox.domain import ledger as ledger
from sandbox.domain.money import ZERO
from sandbox.domain.sale import ADVANCE, COLUMNS, FINAL, RunResult, Sale, advance_of, failure_of, final_of, to_sale
from sandbox.domain.scenario_engine import Facts
from sandbox.domain.unit import UnitOfWork
from sandbox.domain.user import UserRow
from sandbox.unit_of_work.users import read_users

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

CHUNK: Final = 1000
"""Maximum number of sales paid in one transaction. It bounds how long the merchant's other requests wait for the lock."""

_DUE: Final = {
    kind: f"""
    SELECT {COLUMNS} FROM sales WHERE merchant_id = $1 AND {due} AND id > $2
    ORDER BY merchant_id, sales.id LIMIT $3
    """  # noqa: S608 -- constants
    for kind, due in ((ADVANCE, "advance_due"), (FINAL, "final_due"))
}
# A sale whose attempt failed stays due: the next run retries it.
_RECORD_ATTEMPTS: Final = {
    kind: update_by_key(
        "sales",
        rows="unnest($2::uuid[], $3::numeric[], $4::text[]) AS n (id, amount, error)",
        key=("id", "n.id"),
        changes={
            paid: f"coalesce(n.amount, k.{paid})",
            due: "n.error IS NOT NULL",
            "attempts": "coalesce(k.attempts, 0) + 1",
            "last_error": "n.error",
        },
        kept=("user_id", "brand", "earning", "status", "reconciled_at", other, "created_at"),
        where=f"k.{due}",
    )
    for kind, due, paid, other in (
        (ADVANCE, "advance_due", "advance_amount", "final_due"),
        (FINAL, "final_due", "final_amount", "advance_due"),
    )
}
_PAYMENTS: Final = """
INSERT INTO sale_payments (merchant_id, sale_id, kind, amount, transfer_id, created_at)
SELECT $1, sale_id, $2, amount, transfer_id, $3
FROM unnest($4::uuid[], $5::numeric[], $6::uuid[]) AS p (sale_id, amount, transfer_id)
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to pay for a sale. `error` says why it failed; None means that it succeeded."""

    sale_id: str
    user_id: str
    amount: Decimal
    transfer_id: str | None
    error: str | None


async def pay_chunk(
    conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, kind: str, after_id: str, chunk: int
) -> tuple[list[Attempt], str | None]:
    """Try to pay the next `chunk` due sales with ids above `after_id`.

    Return the attempts and the last id, from which the next chunk continues, or None after the last chunk. The caller holds
    the merchant's lock, has read the unit's rules, and writes the unit.
    """
    sales = [to_sale(record) for record in await conn.fetch(_DUE[kind], unit.merchant_id, after_id, chunk)]
    await read_users(conn, unit, [sale.user_id for sale in sales])
    attempts = [_try(unit, unit.users[sale.user_id], sale, kind) for sale in sales]
    if attempts:
        await conn.execute(
            _RECORD_ATTEMPTS[kind],
            unit.merchant_id,
            [attempt.sale_id for attempt in attempts],
            [attempt.amount if attempt.error is None else None for attempt in attempts],
            [attempt.error for attempt in attempts],
        )
        paid = [attempt for attempt in attempts if attempt.error is None]
        await conn.execute(
            _PAYMENTS,
            unit.merchant_id,
            kind,
            unit.now,
            [attempt.sale_id for attempt in paid],
            [attempt.amount for attempt in paid],
            [attempt.transfer_id for attempt in paid],
        )
    return attempts, sales[-1].id if len(sales) == chunk else None


def add_attempts(total: RunResult, attempts: Sequence[Attempt]) -> RunResult:
    """Return a run's result with these attempts added."""
    paid = [attempt.amount for attempt in attempts if attempt.error is None]
    return RunResult(total.paid + len(paid), total.failed + len(attempts) - len(paid), total.total_amount + sum(paid, ZERO))


def _try(unit: UnitOfWork, user: UserRow, sale: Sale, kind: str) -> Attempt:
    amount = advance_of(sale.earning) if kind == ADVANCE else final_of(sale.earning, sale.advance_amount, sale.status)
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
        return Attempt(sale.id, user.id, amount, None, f"{kind} failed: {code} (scenario {scenario})")
    if kind == ADVANCE:
        user.advances += amount
    else:
        user.finals += amount
    transfer_id = None
    if amount != ZERO:
        movement = ledger.ADVANCE if kind == ADVANCE else ledger.FINAL if amount > ZERO else ledger.CLAW_BACK
        transfer_id = unit.transfer(movement, abs(amount), None, f"sale {sale.id}", user.id)
        unit.touch_user(user)
    return Attempt(sale.id, user.id, amount, transfer_id, None)
