"""Claim a merchant's rows into a unit of work, and write the unit's decisions, each table with one statement."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.clock import Clock, milliseconds
from sandbox.errors import Problem
from sandbox.ids import IdSource
from sandbox.ledger.model import MERCHANT_ACCOUNTS
from sandbox.ledger.post import write_transfers
from sandbox.payouts.model import COLUMNS, PayoutRow, to_row
from sandbox.scenarios.stored import stored_rule
from sandbox.users.rows import read_users, write_users
from sandbox.work.before_commit import before_commit
from sandbox.work.unit import IDS_PER_COMMAND, KeyRecord, Subscription, Unit

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

KEY_LIFETIME: Final = timedelta(hours=24)
_RANDOM: Final = random.SystemRandom()

# Taking the ids is taking the merchant's lock: whoever works for this merchant waits here for the one before, so the
# statements behind it see all that the other committed. It must stay a statement of its own: one statement has one
# snapshot, taken before the wait. All workers lock this row first and no other across statements, so none deadlock.
_LOCK = """
UPDATE merchants SET id_sequence = id_sequence + $2 WHERE merchant_id = $1
RETURNING id_sequence - $2 AS counter, seed, clock_frozen_at, clock_offset, default_scenario
"""

_READ = """
SELECT
    ARRAY(SELECT balance FROM accounts WHERE merchant_id = $1 AND account = ANY ($2::text[]) ORDER BY account) AS balances,
    (SELECT sum(version)::bigint FROM accounts WHERE merchant_id = $1 AND account IN ('AVAILABLE', 'LOCKED')) AS version,
    ARRAY(SELECT ROW (id::text, event_types, status) FROM webhook_endpoints WHERE merchant_id = $1 ORDER BY id) AS endpoints,
    ARRAY(SELECT ROW (key, fingerprint, status, body, location) FROM idempotency_keys
          WHERE merchant_id = $1 AND key = ANY ($3::text[]) AND expires_at > $5) AS keys,
    ARRAY(SELECT merchant_reference FROM payouts
          WHERE merchant_id = $1 AND merchant_reference = ANY ($4::text[])) AS taken,
    ARRAY(SELECT ROW (id::text, name, match::text, steps::text) FROM scenario_rules WHERE merchant_id = $1
          ORDER BY position) AS rules
"""

_PAYOUTS_BY_ID = f"SELECT {COLUMNS} FROM payouts WHERE merchant_id = $1 AND id = ANY ($2::uuid[])"  # noqa: S608 -- constants

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
    path, scenario_header, $2, $2, processed_at
FROM unnest($3::uuid[], $4::text[], $5::text[]::numeric[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
    $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::int[], $18::jsonb[], $19::uuid[],
    $20::int[], $21::timestamptz[], $22::int[], $23::text[], $24::jsonb[], $25::text[], $26::timestamptz[])
    AS p (id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code, account_number, account_title, status,
    scenario, failure_code, failure_reason, psp_reference, attempts, metadata, user_id, step, due_at, changes, request_id,
    path, scenario_header, processed_at)
"""

_CHANGE = """
UPDATE payouts p SET status = n.status, scenario = n.scenario, failure_code = n.failure_code,
    failure_reason = n.failure_reason, psp_reference = n.psp_reference, attempts = n.attempts, step = n.step,
    due_at = n.due_at, changes = n.changes, updated_at = $2, processed_at = n.processed_at, path = n.path
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[], $10::int[],
    $11::timestamptz[], $12::int[], $13::timestamptz[], $14::jsonb[])
    AS n (id, status, scenario, failure_code, failure_reason, psp_reference, attempts, step, due_at, changes, processed_at,
    path)
WHERE p.merchant_id = $1 AND p.id = n.id
"""

_EVENTS = """
INSERT INTO events (merchant_id, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id,
    request_id, created_at)
SELECT $1, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id, request_id, $2
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::int[], $8::text[], $9::text[], $10::text[], $11::text[],
    $12::int[], $13::uuid[], $14::text[])
    AS e (id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id, request_id)
"""

_DELIVERIES = """
INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at,
    created_at, updated_at)
SELECT $1, id, event_id, endpoint_id, CASE WHEN enabled THEN 'PENDING' ELSE 'PAUSED' END, 0, 0,
    CASE WHEN enabled THEN $2::timestamptz END, $2, $2
FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::boolean[]) AS d (id, event_id, endpoint_id, enabled)
"""

# A lapsed key still sits in the unique index until it is purged, so a new request takes its row over.
_KEYS = """
INSERT INTO idempotency_keys AS k (merchant_id, key, fingerprint, status, body, location, expires_at)
SELECT $1, key, fingerprint, status, body, location, $2
FROM unnest($3::text[], $4::bytea[], $5::int[], $6::bytea[], $7::text[]) AS n (key, fingerprint, status, body, location)
ON CONFLICT (merchant_id, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status,
    body = EXCLUDED.body, location = EXCLUDED.location, expires_at = EXCLUDED.expires_at
"""


async def lock_merchant(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, weight: int, real_now: datetime | None = None
) -> Unit:
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
    return Unit(
        merchant_id=merchant_id,
        now=now,
        ids=IdSource(milliseconds(now), counter & 0xFFFFFFFF, source.getrandbits),
        default_scenario=record["default_scenario"],
        balances={},
        clock=clock,
    )


async def read_claim(
    conn: "PoolConnectionProxy[Any]",
    unit: Unit,
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


async def read_due(conn: "PoolConnectionProxy[Any]", unit: Unit, limit: int) -> list[PayoutRow]:
    """The payouts whose step is due, the earliest first, at most `limit`; their users are read into the unit."""
    rows = [to_row(record) for record in await conn.fetch(_PAYOUTS_DUE, unit.merchant_id, unit.now, limit)]
    users = [row.payout.user_id for row in rows if row.payout.user_id is not None]
    if users:
        await read_users(conn, unit, users)
    return rows


async def write_unit(conn: "PoolConnectionProxy[Any]", unit: Unit) -> None:
    """Write all that the unit decided, in the transaction that claimed it. Raises asyncpg's errors."""
    merchant, now = unit.merchant_id, unit.now
    created = {row.payout.id for row in unit.created}
    await _write_payouts(conn, unit, [row for id_, row in unit.changed.items() if id_ not in created])
    await write_transfers(conn, merchant, now, unit.posted, unit.balances)
    if unit.changed_users:
        await write_users(conn, merchant, now, list(unit.changed_users.values()), unit.user_transactions)
    if unit.events:
        await conn.execute(
            _EVENTS,
            merchant,
            now,
            [event.id for event in unit.events],
            [event.type for event in unit.events],
            [event.body for event in unit.events],
            [event.payout_id for event in unit.events],
            [event.change for event in unit.events],
            [event.from_status for event in unit.events],
            [event.to_status for event in unit.events],
            [event.cause for event in unit.events],
            [event.scenario for event in unit.events],
            [event.step for event in unit.events],
            [event.transfer_id for event in unit.events],
            [event.request_id for event in unit.events],
        )
    if unit.deliveries:
        await conn.execute(
            _DELIVERIES,
            merchant,
            now,
            [delivery.id for delivery in unit.deliveries],
            [delivery.event_id for delivery in unit.deliveries],
            [delivery.endpoint_id for delivery in unit.deliveries],
            [delivery.enabled for delivery in unit.deliveries],
        )
    if unit.new_keys:
        records = unit.new_keys.values()
        await conn.execute(
            _KEYS,
            merchant,
            now + KEY_LIFETIME,
            list(unit.new_keys),
            [record.fingerprint for record in records],
            [record.status for record in records],
            [record.body for record in records],
            [record.location for record in records],
        )
    await before_commit(unit)


async def _write_payouts(conn: "PoolConnectionProxy[Any]", unit: Unit, changed: list[PayoutRow]) -> None:
    rows = unit.created
    if rows:
        payouts = [row.payout for row in rows]
        await conn.execute(
            _CREATE,
            unit.merchant_id,
            unit.now,
            [p.id for p in payouts],
            [p.merchant_reference for p in payouts],
            [str(p.amount) for p in payouts],
            [p.currency for p in payouts],
            [p.dest_type for p in payouts],
            [p.bank_code for p in payouts],
            [p.wallet_code for p in payouts],
            [p.account_number for p in payouts],
            [p.account_title for p in payouts],
            [p.status for p in payouts],
            [p.scenario for p in payouts],
            [p.failure_code for p in payouts],
            [p.failure_reason for p in payouts],
            [p.psp_reference for p in payouts],
            [p.attempts for p in payouts],
            [_metadata_text(p.metadata) for p in payouts],
            [p.user_id for p in payouts],
            [row.step for row in rows],
            [row.due_at for row in rows],
            [row.changes for row in rows],
            [row.request_id for row in rows],
            [row.path for row in rows],
            [row.scenario_header for row in rows],
            [row.processed_at for row in rows],
        )
    if changed:
        payouts = [row.payout for row in changed]
        written = await conn.execute(
            _CHANGE,
            unit.merchant_id,
            unit.now,
            [p.id for p in payouts],
            [p.status for p in payouts],
            [p.scenario for p in payouts],
            [p.failure_code for p in payouts],
            [p.failure_reason for p in payouts],
            [p.psp_reference for p in payouts],
            [p.attempts for p in payouts],
            [row.step for row in changed],
            [row.due_at for row in changed],
            [row.changes for row in changed],
            [row.processed_at for row in changed],
            [row.path for row in changed],
        )
        if written != f"UPDATE {len(changed)}":
            raise RuntimeError("a claimed payout is gone")


def _metadata_text(metadata: dict[str, str]) -> str:
    return msgspec.json.encode(metadata).decode() if metadata else "{}"
