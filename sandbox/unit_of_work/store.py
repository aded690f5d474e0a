"""Claim a merchant's rows into a unit of work, and write the unit's decisions, each table with one statement."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.db.rows import as_json, by_key, update_by_key
from sandbox.domain.clock import Clock, milliseconds
from sandbox.domain.errors import Problem
from sandbox.domain.ids import IdSource
from sandbox.domain.ledger import MERCHANT_ACCOUNTS
from sandbox.domain.payout import COLUMNS, PayoutRow, pair_of, to_row
from sandbox.domain.stored_scenario import stored_rule
from sandbox.domain.unit import IDS_PER_COMMAND, KeyRecord, Subscription, UnitOfWork
from sandbox.unit_of_work.before_commit import before_commit
from sandbox.unit_of_work.ledger import write_transfers
from sandbox.unit_of_work.users import read_users, write_users

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

KEY_LIFETIME: Final = timedelta(hours=24)
# Ids are no secrets, and are asked for often: the system's own source costs a call of the kernel for each.
_RANDOM: Final = random.Random()  # noqa: S311 -- as above

# Taking the ids is taking the merchant's lock: whoever works for this merchant waits here for the one before, so the
# statements behind it see all that the other committed. It must stay a statement of its own: one statement has one
# snapshot, taken before the wait. All workers lock this row first and no other across statements, so none deadlock.
_LOCK = """
UPDATE worlds SET id_sequence = id_sequence + $2 WHERE merchant_id = $1
RETURNING id_sequence - $2 AS counter, seed, clock_frozen_at, clock_offset, default_scenario, approvals_expire_after,
    review_threshold
"""

# What is asked for by key is looked up key by key (LATERAL; OFFSET 0 keeps the planner from making a join of it). With
# `= ANY` it may read all of the merchant's rows instead, where it believes that there are few.
_READ = f"""
SELECT a.balances, a.version,
    ARRAY(SELECT ROW (id::text, event_types, status) FROM webhook_endpoints WHERE merchant_id = $1 ORDER BY id) AS endpoints,
    ARRAY(SELECT ROW (k.key, k.fingerprint, k.status, k.body, k.location) FROM unnest($3::text[]) AS n (key)
    CROSS JOIN LATERAL (
        SELECT * FROM idempotency_keys WHERE {by_key("idempotency_keys", "key", "n.key")} OFFSET 0
    ) k WHERE k.expires_at > $5) AS keys,
    ARRAY(SELECT p.merchant_reference FROM unnest($4::text[]) AS n (reference) CROSS JOIN LATERAL (
        SELECT merchant_reference FROM payouts WHERE {by_key("payouts", "merchant_reference", "n.reference")} OFFSET 0
    ) p) AS taken,
    ARRAY(SELECT ROW (id::text, name, match::text, steps::text) FROM scenario_rules WHERE merchant_id = $1
          ORDER BY position) AS rules
FROM (
    SELECT array_agg(a.balance ORDER BY n.place) AS balances,
        sum(a.version) FILTER (WHERE n.account IN ('AVAILABLE', 'LOCKED'))::bigint AS version
    FROM unnest($2::text[]) WITH ORDINALITY AS n (account, place) CROSS JOIN LATERAL (
        SELECT balance, version FROM accounts WHERE {by_key("accounts", "account", "n.account")} OFFSET 0
    ) a
) a
"""  # noqa: S608 -- constants

_PAYOUTS_BY_ID = f"""
SELECT p.* FROM unnest($2::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM payouts WHERE {by_key("payouts", "id", "n.id")} OFFSET 0
) p
"""  # noqa: S608 -- constants

_PAYOUTS_DUE = (
    f"SELECT {COLUMNS} FROM payouts WHERE merchant_id = $1 AND due_at <= $2 "  # noqa: S608 -- constants
    "ORDER BY merchant_id, due_at, id LIMIT $3"
)

_CREATE = """
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

_METADATA = """
INSERT INTO payout_metadata (merchant_id, pair, payout_id)
SELECT $1, pair, payout_id FROM json_to_recordset($2::json) AS m (pair uuid, payout_id uuid)
"""

_CHANGE = update_by_key(
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

_EVENTS = """
INSERT INTO events (merchant_id, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id,
    request_id, actor, created_at)
SELECT $1, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id, request_id, actor, $2
FROM json_to_recordset($3::json) AS e (id uuid, type text, body text, payout_id uuid, change int, from_status text,
    to_status text, cause text, scenario text, step int, transfer_id uuid, request_id text, actor uuid)
"""

_DELIVERIES = """
INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at,
    created_at, updated_at)
SELECT $1, id, event_id, endpoint_id, CASE WHEN enabled THEN 'PENDING' ELSE 'PAUSED' END, 0, 0,
    CASE WHEN enabled THEN $2::timestamptz END, $2, $2
FROM json_to_recordset($3::json) AS d (id uuid, event_id uuid, endpoint_id uuid, enabled boolean)
"""

# A lapsed key still sits in the unique index until it is purged, so a new request takes its row over.
_KEYS = """
INSERT INTO idempotency_keys AS k (merchant_id, key, fingerprint, status, body, location, expires_at)
SELECT $1, key, decode(fingerprint, 'base64'), status, decode(body, 'base64'), location, coalesce(expires_at, $2)
FROM json_to_recordset($3::json) AS n (key text, fingerprint text, status int, body text, location text,
    expires_at timestamptz)
ON CONFLICT (merchant_id, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status,
    body = EXCLUDED.body, location = EXCLUDED.location, expires_at = EXCLUDED.expires_at
"""


async def lock_merchant(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, weight: int, real_now: datetime | None = None
) -> UnitOfWork:
    """Take the merchant's lock until the transaction ends, and begin a unit of work at its now.

    `weight` is the number of payouts that the unit may touch. Raises NOT_FOUND if the merchant is gone.
    """
    record = await conn.fetchrow(_LOCK, merchant_id, (weight + 1) * IDS_PER_COMMAND)
    if record is None:
        raise Problem("NOT_FOUND", "This merchant was deleted.")
    # The host's time is read after the wait for the lock: units of one merchant follow each other in time as well.
    clock = Clock(record["clock_frozen_at"], record["clock_offset"])
    now = clock.now(real_now or datetime.now(UTC))
    counter, seed = record["counter"], record["seed"]
    source = _RANDOM if seed is None else random.Random(f"{seed}:{counter}")  # noqa: S311 -- repeatable on purpose
    return UnitOfWork(
        merchant_id=merchant_id,
        now=now,
        ids=IdSource(milliseconds(now), counter & 0xFFFFFFFF, source.getrandbits),
        default_scenario=record["default_scenario"],
        balances={},
        clock=clock,
        approvals_expire_after=record["approvals_expire_after"],
        review_threshold=record["review_threshold"],
    )


async def read_claim(
    conn: "PoolConnectionProxy[Any]",
    unit: UnitOfWork,
    keys: Sequence[str] = (),
    references: Sequence[str] = (),
    payout_ids: Sequence[str] = (),
    user_ids: Sequence[str] = (),
) -> None:
    """Fill the unit with what its commands need to see: balances, subscriptions, keys, references, payouts and users.

    The users of the payouts come with them.
    """
    record = await conn.fetchrow(_READ, unit.merchant_id, list(MERCHANT_ACCOUNTS), keys, references, unit.now)
    assert record is not None
    unit.balances = dict(zip(MERCHANT_ACCOUNTS, record["balances"], strict=True))
    unit.balance_version = record["version"]
    unit.subscriptions = [Subscription(id_, tuple(types), status == "ENABLED") for id_, types, status in record["endpoints"]]
    unit.keys = {
        key: KeyRecord(fingerprint, status, body, location) for key, fingerprint, status, body, location in record["keys"]
    }
    unit.references = set(record["taken"])
    unit.rules = [stored_rule(*rule) for rule in record["rules"]]
    if payout_ids:
        for found in await conn.fetch(_PAYOUTS_BY_ID, unit.merchant_id, payout_ids):
            unit.payouts[found["id"]] = to_row(found)
    wanted = [*user_ids, *(row.payout.user_id for row in unit.payouts.values() if row.payout.user_id is not None)]
    if wanted:
        await read_users(conn, unit, wanted)


async def read_due(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, limit: int) -> list[PayoutRow]:
    """The payouts whose step is due, the earliest first, at most `limit`; their users are read into the unit."""
    rows = [to_row(record) for record in await conn.fetch(_PAYOUTS_DUE, unit.merchant_id, unit.now, limit)]
    users = [row.payout.user_id for row in rows if row.payout.user_id is not None]
    if users:
        await read_users(conn, unit, users)
    return rows


async def write_unit(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> None:
    """Write all that the unit decided, in the transaction that claimed it. Raises asyncpg's errors."""
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
    await before_commit(unit)


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
