"""Sales: make, list and reconcile them, and pay what they earn."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from sandbox.clock import render
from sandbox.db.engine import available, connection
from sandbox.errors import Problem
from sandbox.http.paging import Page, Window, page
from sandbox.ids import SMALLEST_ID
from sandbox.ledger.model import ADVANCE, CLAW_BACK, FINAL
from sandbox.money import ZERO
from sandbox.sales.model import RunResult, Sale, advance_of, final_of
from sandbox.sales.requests import CreateSaleBody, ReconcileItem
from sandbox.users.rows import read_users
from sandbox.work.idempotency import progress
from sandbox.work.in_flight import in_flight
from sandbox.work.keyed import run_keyed, run_part, to_the_end
from sandbox.work.unit import IDS_PER_COMMAND, Answer, IdempotencyKey, Origin, Unit

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

CHUNK: Final = 1000
"""Sales paid in one transaction: others of the merchant wait no longer than for these."""
_MERCHANTS_AT_ONCE: Final = 500
_CRON: Final = Origin("cron", "/api/v1/payouts", "")
_log = structlog.get_logger()

_COLUMNS: Final = (
    "id::text AS id, user_id::text AS user_id, brand, earning, status, advance_amount, final_amount, created_at, reconciled_at"
)
_INSERT: Final = """
INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_due, final_due, created_at)
VALUES ($1, $2, $3, $4, $5, 'PENDING', true, false, $6)
"""
# Each status is a range of one index in the order of ids, so a page reads at most 3 × limit rows.
_LIST: Final = f"""
SELECT s.* FROM unnest($2::text[]) AS k (status) CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM sales
    WHERE merchant_id = $1 AND (status, id) < (k.status, $3::uuid) AND (status, id) >= (k.status, $4::uuid)
    ORDER BY merchant_id DESC, status DESC, sales.id DESC LIMIT $5
) s ORDER BY s.id DESC LIMIT $5
"""  # noqa: S608 -- constants
_TO_RECONCILE: Final = f"SELECT {_COLUMNS} FROM sales WHERE merchant_id = $1 AND id = ANY ($2::uuid[])"  # noqa: S608 -- constants
_RECONCILE: Final = """
UPDATE sales s SET status = n.status, reconciled_at = $2, advance_due = false, final_due = true
FROM unnest($3::uuid[], $4::text[]) AS n (id, status) WHERE s.merchant_id = $1 AND s.id = n.id AND s.status = 'PENDING'
"""
_TO_PAY: Final = {
    kind: f"""
    SELECT {_COLUMNS} FROM sales WHERE merchant_id = $1 AND {due} AND id > $2
    ORDER BY merchant_id, sales.id LIMIT $3
    """  # noqa: S608 -- constants
    for kind, due in (("ADVANCE", "advance_due"), ("FINAL", "final_due"))
}
_PAID: Final = {
    "ADVANCE": """
    UPDATE sales s SET advance_amount = n.amount, advance_due = false
    FROM unnest($2::uuid[], $3::numeric[]) AS n (id, amount) WHERE s.merchant_id = $1 AND s.id = n.id AND s.advance_due
    """,
    "FINAL": """
    UPDATE sales s SET final_amount = n.amount, final_due = false
    FROM unnest($2::uuid[], $3::numeric[]) AS n (id, amount) WHERE s.merchant_id = $1 AND s.id = n.id AND s.final_due
    """,
}
_PAYMENTS: Final = """
INSERT INTO sale_payments (merchant_id, sale_id, kind, amount, transfer_id, created_at)
SELECT $1, sale_id, $2, amount, transfer_id, $3
FROM unnest($4::uuid[], $5::numeric[], $6::uuid[]) AS p (sale_id, amount, transfer_id)
"""
# The earliest entry of an index for each merchant whose clock runs; what is frozen moves only by its own hand.
_MERCHANTS: Final = """
SELECT m.merchant_id::text FROM merchants m WHERE m.merchant_id > $1 AND m.clock_frozen_at IS NULL AND (
    EXISTS (SELECT FROM sales s WHERE s.merchant_id = m.merchant_id AND s.advance_due)
    OR EXISTS (SELECT FROM sales s WHERE s.merchant_id = m.merchant_id AND s.final_due))
ORDER BY m.merchant_id LIMIT $2
"""


class Reconciled(msgspec.Struct):
    """The sales that a reconciliation changed, in the order in which it named them."""

    reconciled: int
    sales: list[Sale]


class _Progress(msgspec.Struct):
    """What a run has done so far, of the sales up to the id `behind`."""

    total: RunResult
    behind: str


class SalesService:
    """What the API offers of sales."""

    async def create(self, merchant_id: str, body: CreateSaleBody, earning: Decimal, key: IdempotencyKey | None,
                     origin: Origin) -> Answer:  # fmt: skip
        """Record a sale that a user made; 404 for an unknown user is an answer."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: Unit) -> Answer:
            known = await conn.fetchval(
                "SELECT true FROM users WHERE merchant_id = $1 AND id = $2", unit.merchant_id, body.user_id
            )
            if not known:
                raise Problem("NOT_FOUND", f"There is no user {body.user_id}.")
            sale_id = unit.ids.next()
            await conn.execute(_INSERT, unit.merchant_id, sale_id, body.user_id, body.brand, earning, unit.now)
            made = Sale(sale_id, body.user_id, body.brand, earning, "PENDING", None, None, unit.now_text, None)
            return Answer(201, msgspec.json.encode(made), "/api/v1/sales")

        return await run_keyed(merchant_id, key, origin, action)

    async def list(self, merchant_id: str, window: Window, statuses: Sequence[str]) -> Page:
        """A page of sales, newest first."""
        async with available(), connection() as conn:
            records = await conn.fetch(_LIST, merchant_id, statuses, window.before, window.since, window.limit + 1)
        found = [_sale(record) for record in records]
        return page(found, window.limit, [sale.id for sale in found])

    async def reconcile(
        self, merchant_id: str, items: Sequence[ReconcileItem], key: IdempotencyKey | None, origin: Origin
    ) -> Answer:
        """Approve or decline sales, all or none. Raises VALIDATION_ERROR for a sale that is named twice."""
        wanted = {item.sale_id: item.status for item in items}
        if len(wanted) < len(items):
            ids = [item.sale_id for item in items]
            place = next(place for place, sale_id in enumerate(ids) if sale_id in ids[:place])
            raise Problem(
                "VALIDATION_ERROR", f"Sale {ids[place]} is named twice.", errors=[(f"[{place}].sale_id", "is named twice")]
            )

        async def action(conn: "PoolConnectionProxy[Any]", unit: Unit) -> Answer:
            records = await conn.fetch(_TO_RECONCILE, unit.merchant_id, list(wanted))
            found = {record["id"]: _sale(record) for record in records}
            for sale_id in wanted:
                if sale_id not in found:
                    raise Problem("NOT_FOUND", f"There is no sale {sale_id}; none of the sales was reconciled.")
            for sale_id, sale in found.items():
                if sale.status != "PENDING":
                    raise Problem("ALREADY_RECONCILED", f"Sale {sale_id} is {sale.status}; none of the sales was reconciled.")
            await conn.execute(_RECONCILE, unit.merchant_id, unit.now, list(wanted), list(wanted.values()))
            for sale_id, status in wanted.items():
                found[sale_id].status, found[sale_id].reconciled_at = status, unit.now_text
            body = Reconciled(len(wanted), [found[sale_id] for sale_id in wanted])
            return Answer(200, msgspec.json.encode(body))

        return await run_keyed(merchant_id, key, origin, action)

    async def run(self, merchant_id: str, kind: str, key: IdempotencyKey | None, origin: Origin) -> Answer:
        """Pay all advances (`ADVANCE`) or final payments (`FINAL`) that are due: 200 with what was done.

        In chunks, each a transaction of its own, which keeps under the key how far the run has come. One that dies between
        two chunks has paid the sales before it, once; repeated with its key it pays the others, and answers for all.
        """
        return await to_the_end(self._run(merchant_id, kind, key, origin))

    async def _run(self, merchant_id: str, kind: str, key: IdempotencyKey | None, origin: Origin) -> Answer:
        answer = Answer(200, msgspec.json.encode(_Progress(RunResult(0, 0, ZERO), SMALLEST_ID)), provisional=True)
        with in_flight(merchant_id, key):
            while answer.provisional:
                before = answer.body

                async def action(conn: "PoolConnectionProxy[Any]", unit: Unit, before: bytes = before) -> Answer:
                    done = msgspec.json.decode(progress(unit, key) or before, type=_Progress)
                    part, behind = await _pay(conn, unit, kind, done.behind)
                    total = RunResult(
                        done.total.paid + part.paid,
                        done.total.failed + part.failed,
                        done.total.total_amount + part.total_amount,
                    )
                    if behind is None:
                        return Answer(200, msgspec.json.encode(total))
                    return Answer(200, msgspec.json.encode(_Progress(total, behind)), provisional=True)

                answer = await run_part(merchant_id, key, origin, action, weight=CHUNK // IDS_PER_COMMAND + 1)
        return answer

    async def run_for_all(self) -> None:
        """Pay all that is due of every merchant whose clock runs; one whose run fails is logged, and stops no other.

        Raises asyncpg's errors when the merchants cannot be listed; what was paid stays paid.
        """
        merchant_id = SMALLEST_ID
        while True:
            async with connection() as conn:
                found = [record[0] for record in await conn.fetch(_MERCHANTS, merchant_id, _MERCHANTS_AT_ONCE)]
            for merchant_id in found:
                await self._run_for(merchant_id)
            if len(found) < _MERCHANTS_AT_ONCE:
                return

    async def _run_for(self, merchant_id: str) -> None:
        for kind in ("ADVANCE", "FINAL"):
            try:
                await self.run(merchant_id, kind, None, _CRON)
            except Problem as problem:
                # A merchant that was deleted meanwhile has nothing left to pay.
                if problem.code != "NOT_FOUND":
                    _log.warning("sales_run_failed", merchant_id=merchant_id, kind=kind, error=problem.detail)
            except Exception:
                _log.exception("sales_run_failed", merchant_id=merchant_id, kind=kind)


async def _pay(conn: "PoolConnectionProxy[Any]", unit: Unit, kind: str, behind: str) -> tuple[RunResult, str | None]:
    """Pay the next CHUNK sales behind an id, under the merchant's lock; and where to go on, None at the end."""
    records = await conn.fetch(_TO_PAY[kind], unit.merchant_id, behind, CHUNK)
    sales = [_sale(record) for record in records]
    await read_users(conn, unit, [sale.user_id for sale in sales])
    paid: list[tuple[str, Decimal, str | None]] = []
    for sale in sales:
        user = unit.users[sale.user_id]
        if user.refuses_payments:
            # Nothing moves, and the sale stays due: the next run tries it again.
            continue
        if kind == "ADVANCE":
            amount = advance_of(sale.earning)
            user.advances += amount
        else:
            amount = final_of(sale.earning, sale.advance_amount, sale.status)
            user.finals += amount
        transfer_id = None
        if amount != ZERO:
            movement = ADVANCE if kind == "ADVANCE" else FINAL if amount > ZERO else CLAW_BACK
            transfer_id = unit.transfer(movement, abs(amount), None, f"sale {sale.id}", user.id)
            unit.touch_user(user)
        paid.append((sale.id, amount, transfer_id))
    if paid:
        ids, amounts, transfer_ids = (list(column) for column in zip(*paid, strict=True))
        await conn.execute(_PAID[kind], unit.merchant_id, ids, amounts)
        await conn.execute(_PAYMENTS, unit.merchant_id, kind, unit.now, ids, amounts, transfer_ids)
    result = RunResult(len(paid), len(sales) - len(paid), sum((amount for _, amount, _ in paid), ZERO))
    return result, sales[-1].id if len(sales) == CHUNK else None


def _sale(record: Mapping[str, Any]) -> Sale:
    return Sale(
        id=record["id"],
        user_id=record["user_id"],
        brand=record["brand"],
        earning=record["earning"],
        status=record["status"],
        advance_amount=record["advance_amount"],
        final_amount=record["final_amount"],
        created_at=render(record["created_at"]),
        reconciled_at=None if record["reconciled_at"] is None else render(record["reconciled_at"]),
    )
