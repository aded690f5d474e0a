"""Write what units of work decided, each table with one statement."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.db.rows import as_json
from sandbox.db.statements import read_statements
from sandbox.domain.payout import PayoutRow, pair_of
from sandbox.domain.unit import UnitOfWork
from sandbox.unit_of_work.ledger import write_transfers
from sandbox.unit_of_work.users import write_users

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

KEY_LIFETIME: Final = timedelta(hours=24)

_SQL: Final = read_statements(__name__)
_CREATE: Final = _SQL["create"]
_METADATA: Final = _SQL["metadata"]
_CHANGE: Final = _SQL["change"]
_EVENTS: Final = _SQL["events"]
_DELIVERIES: Final = _SQL["deliveries"]
_KEYS: Final = _SQL["keys"]


async def write(conn: "PoolConnectionProxy[Any]", units: Sequence[UnitOfWork]) -> None:
    """Write all that the units decided, in the transaction that claimed them. Raises asyncpg's errors."""
    for unit in units:
        await _write(conn, unit)


async def _write(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> None:
    merchant, now = unit.merchant_id, unit.now
    created = {row.payout.id for row in unit.created}
    await _write_payouts(conn, unit, [row for id_, row in unit.changed.items() if id_ not in created])
    await write_transfers(conn, merchant, now, unit.posted, unit.balances)
    if unit.changed_users:
        await write_users(conn, merchant, now, list(unit.changed_users.values()), unit.user_transactions)
    if unit.events:
        await conn.execute(_EVENTS, merchant, now, as_json(unit.events))
    if unit.deliveries:
        await conn.execute(_DELIVERIES, merchant, now, as_json(unit.deliveries))
    if unit.new_keys:
        keys = (
            {"key": key, "fingerprint": kept.fingerprint, "status": kept.status, "body": kept.body, "location": kept.location}
            | ({} if kept.expires else {"expires_at": "infinity"})
            for key, kept in unit.new_keys.items()
        )
        await conn.execute(_KEYS, merchant, now + KEY_LIFETIME, as_json(keys))


def _columns(row: PayoutRow) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(row.payout),
        "step": row.step,
        "due_at": row.due_at,
        "changes": row.payout.version,
        "request_id": row.request_id,
        "path": row.path,
        "scenario_header": row.scenario_header,
        "processed_at": row.processed_at,
    }


async def _write_payouts(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, changed: list[PayoutRow]) -> None:
    if unit.created:
        await conn.execute(_CREATE, unit.merchant_id, unit.now, as_json(map(_columns, unit.created)))
        pairs = [
            {"pair": pair_of(name, value), "payout_id": row.payout.id}
            for row in unit.created
            for name, value in row.payout.metadata.items()
        ]
        if pairs:
            await conn.execute(_METADATA, unit.merchant_id, as_json(pairs))
    if changed:
        written = await conn.execute(_CHANGE, unit.merchant_id, unit.now, as_json(map(_columns, changed)))
        if written != f"INSERT 0 {len(changed)}":
            raise RuntimeError("a claimed payout is gone")
