"""Write what units of work decided, each table with one statement."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.db.rows import as_json, update_by_key
from sandbox.domain.payout import PayoutRow, pair_of
from sandbox.domain.unit import UnitOfWork
from sandbox.unit_of_work.ledger import write_transfers
from sandbox.unit_of_work.users import write_users

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

KEY_LIFETIME: Final = timedelta(hours=24)

_CREATE: Final = """
INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code, account_number,
    account_title, status, scenario, failure_code, failure_reason, psp_reference, attempts, metadata, user_id, step, due_at,
    changes, request_id, path, scenario_header, created_at, updated_at, processed_at)
SELECT $1, id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code, account_number, account_title, status,
    scenario, failure_code, failure_reason, psp_reference, attempts, metadata, user_id, step, due_at, changes, request_id,
    path::jsonb, scenario_header, $2, $2, processed_at
FROM json_to_recordset($3::json) AS p (id uuid, merchant_reference text, amount numeric, currency text, dest_type text,
    bank_code text, wallet_code text, account_number text, account_title text, status text, scenario text, failure_code text,
    failure_reason text, psp_reference text, attempts int, metadata jsonb, user_id uuid, step int, due_at timestamptz,
    changes int, request_id text, path text, scenario_header text, processed_at timestamptz)
"""

_METADATA: Final = """
INSERT INTO payout_metadata (merchant_id, pair, payout_id)
SELECT $1, pair, payout_id FROM json_to_recordset($2::json) AS m (pair uuid, payout_id uuid)
"""

_CHANGE: Final = update_by_key(
    "payouts",
    rows="""json_to_recordset($3::json) AS n (id uuid, status text, scenario text, failure_code text, failure_reason text,
    psp_reference text, attempts int, step int, due_at timestamptz, changes int, processed_at timestamptz, path text,
    request_id text)""",
    key=("id", "n.id"),
    changes={
        "status": "n.status",
        "scenario": "n.scenario",
        "failure_code": "n.failure_code",
        "failure_reason": "n.failure_reason",
        "psp_reference": "n.psp_reference",
        "attempts": "n.attempts",
        "step": "n.step",
        "due_at": "n.due_at",
        "changes": "n.changes",
        "updated_at": "$2",
        "processed_at": "n.processed_at",
        "path": "n.path::jsonb",
        "request_id": "n.request_id",
    },
    kept=(
        *("merchant_reference", "amount", "currency", "dest_type", "bank_code", "wallet_code", "account_number"),
        *("metadata", "created_at"),
    ),
)

_EVENTS: Final = """
INSERT INTO events (merchant_id, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id,
    request_id, actor, created_at)
SELECT $1, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id, request_id, actor, $2
FROM json_to_recordset($3::json) AS e (id uuid, type text, body text, payout_id uuid, change int, from_status text,
    to_status text, cause text, scenario text, step int, transfer_id uuid, request_id text, actor uuid)
"""

_DELIVERIES: Final = """
INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at,
    created_at, updated_at)
SELECT $1, id, event_id, endpoint_id, CASE WHEN enabled THEN 'PENDING' ELSE 'PAUSED' END, 0, 0,
    CASE WHEN enabled THEN $2::timestamptz END, $2, $2
FROM json_to_recordset($3::json) AS d (id uuid, event_id uuid, endpoint_id uuid, enabled boolean)
"""

# A lapsed key still sits in the unique index until it is purged, so a new request takes its row over.
_KEYS: Final = """
INSERT INTO idempotency_keys AS k (merchant_id, key, fingerprint, status, body, location, expires_at)
SELECT $1, key, decode(fingerprint, 'base64'), status, decode(body, 'base64'), location, coalesce(expires_at, $2)
FROM json_to_recordset($3::json) AS n (key text, fingerprint text, status int, body text, location text,
    expires_at timestamptz)
ON CONFLICT (merchant_id, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status,
    body = EXCLUDED.body, location = EXCLUDED.location, expires_at = EXCLUDED.expires_at
"""


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
            | ({} if kept.lapses else {"expires_at": "infinity"})
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
