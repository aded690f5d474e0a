"""Write the decisions of units of work, with one call of the database function `psp_write` (write.sql)."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.domain.ledger import Posted
from sandbox.domain.payout import PayoutRow, metadata_pair_id
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.db.joined_messages import commit_joined
from sandbox.infrastructure.db.rows import as_json
from sandbox.infrastructure.large_work import compute

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_LARGE_WRITE: Final = 300
"""Events. A full round of other commands has no more."""
_RowBuilder = Callable[[UnitOfWork], Iterable[object]]


async def write(conn: "PoolConnectionProxy[Any]", units: Sequence[UnitOfWork], *, commit: bool = False) -> None:
    """Write everything the units decided, in the transaction that claimed them. Also `commit` it, if anything is to be written.

    Raises RuntimeError outside a transaction, asyncpg.CheckViolationError for a balance that the account does not allow, and
    asyncpg's other errors.
    """
    if not conn.is_in_transaction():
        raise RuntimeError("write() must be called inside a transaction")
    # The events' bodies are JSON texts. As strings in JSON rows, they would be escaped, which PostgreSQL parses slowly.
    bodies: list[str] = []

    def build_rows() -> list[list[str] | None]:
        return [_rows_per_unit(units, build) for build in (*_ROW_BUILDERS, lambda unit: _events(unit, bodies))]

    is_large = sum(len(unit.events) for unit in units) > _LARGE_WRITE
    rows = await compute(units[0].merchant_id, build_rows, is_large=is_large)
    if any(part is not None for part in rows):
        with commit_joined(conn, _WRITE) if commit else nullcontext():
            await conn.execute(_WRITE, [unit.merchant_id for unit in units], [unit.now for unit in units], *rows, bodies)


def _rows_per_unit(units: Sequence[UnitOfWork], build: _RowBuilder) -> list[str] | None:
    """Return one table's rows as a JSON array per unit, or None if no unit has any."""
    found = [list(build(unit)) for unit in units]
    return [as_json(rows) for rows in found] if any(found) else None


def _created(unit: UnitOfWork) -> Iterable[object]:
    return map(_columns, unit.created)


def _metadata(unit: UnitOfWork) -> Iterable[object]:
    for row in unit.created:
        for name, value in row.payout.metadata.items():
            yield {"pair": metadata_pair_id(name, value), "payout_id": row.payout.id}


def _changed(unit: UnitOfWork) -> Iterable[object]:
    created = {row.payout.id for row in unit.created}
    return [_columns(row) for id_, row in unit.changed.items() if id_ not in created]


def _columns(row: PayoutRow) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(row.payout),
        "step": row.step,
        "due_at": row.due_at,
        "changes": row.payout.version,
        "request_id": row.request_id,
        "path": row.steps_json,
        "scenario_header": row.scenario_header,
        "traceparent": row.traceparent,
        "processed_at": row.processed_at,
    }


def _transfers(unit: UnitOfWork) -> Iterable[object]:
    for result in unit.posted:
        transfer = result.transfer
        yield {
            "id": transfer.id,
            "debit_account": transfer.debit_account,
            "credit_account": transfer.credit_account,
            "amount": transfer.amount,
            "debit_after": result.debit_balance_after,
            "credit_after": result.credit_balance_after,
            "reason": transfer.movement.reason,
            "payout_id": transfer.payout_id,
            "description": transfer.description,
        }


def _balances(unit: UnitOfWork) -> Iterable[object]:
    return balances_of(unit.posted, unit.balances)


def balances_of(posted: Sequence[Posted], balances: Mapping[str, Decimal]) -> list[dict[str, object]]:
    """Return each account that the transfers change, with its final balance and the number of changes."""
    changes: Counter[str] = Counter()
    for result in posted:
        changes[result.transfer.debit_account] += 1
        changes[result.transfer.credit_account] += 1
    return [{"account": account, "balance": balances[account], "changes": n} for account, n in sorted(changes.items())]


def _events(unit: UnitOfWork, bodies: list[str]) -> Iterable[object]:
    """Append the events' bodies to `bodies`. Each row has its body's position there, counted from 1."""
    for event in unit.events:
        bodies.append(event.body)
        yield {
            "id": event.id,
            "type": event.type,
            "body": len(bodies),
            "payout_id": event.payout_id,
            "change": event.change,
            "from_status": event.from_status,
            "to_status": event.to_status,
            "cause": event.cause,
            "scenario": event.scenario,
            "step": event.step,
            "transfer_id": event.transfer_id,
            "request_id": event.request_id,
            "actor": event.actor,
            "traceparent": event.traceparent,
        }


def _keys(unit: UnitOfWork) -> Iterable[object]:
    for key, stored in unit.new_keys.items():
        row: dict[str, object] = {
            "key": key, "fingerprint": stored.fingerprint, "status": stored.status, "body": stored.body,
            "location": stored.location,
        }  # fmt: skip
        yield row if stored.expires else row | {"expires_at": "infinity"}


_ROW_BUILDERS: Final[Sequence[_RowBuilder]] = (
    _created,
    _metadata,
    _changed,
    _transfers,
    _balances,
    lambda unit: unit.changed_users.values(),
    lambda unit: unit.user_transactions,
    lambda unit: unit.deliveries,
    _keys,
)
"""For each table except events, a function that returns a unit's rows. In the order of the arguments of `psp_write`."""
_WRITE: Final = """
SELECT psp_write($1::uuid[], $2::timestamptz[], $3::json[], $4::json[], $5::json[], $6::json[], $7::json[], $8::json[],
    $9::json[], $10::json[], $11::json[], $12::json[], $13::text[])
"""
