"""Run the operator's actions under the operator's idempotency keys.

These keys have a table of their own, because a merchant that is being created has no keys yet. As everywhere, an action and
the record of its key commit together, if they are in the same shard of a distributed database. The key alone determines the
shard of its record, through a slot that takes the place of a merchant. A new merchant gets an id in that shard.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sandbox.domain.clock import truncate
from sandbox.domain.errors import Problem
from sandbox.domain.idempotency import KEY_LIFETIME, UNFINISHED, is_stored, record_of, refuse, stored_result
from sandbox.domain.unit import CommandResult, IdempotencyKey, KeyRecord, RequestContext
from sandbox.infrastructure.db.distributed.placement import every_shard, is_available, shard_of
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, connection, transaction
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed_results import seal, unseal
from sandbox.unit_of_work.transaction import execute_in_own_transaction, with_retries

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Action = Callable[["PoolConnectionProxy[Any]"], Awaitable[CommandResult]]
"""Runs in the transaction, and again if the transaction is retried. To refuse with 404, 409 or 422, it raises Problem before it
writes anything."""

_IN_FLIGHT: Final = "operator"
"""The operator's merchant id in `in_flight`. No real merchant id looks like it."""
_MAX_CANDIDATES: Final = 20_000
"""How many ids to try. There are at most 128 shards, so all but 1 in 10⁶⁷ searches succeed."""
_MAX_NODES_TRIED: Final = 8
_ACROSS_SHARDS: Final = asyncio.Semaphore(2)
"""Each action across shards takes two connections. Without this limit, actions could wait for each other's second one."""

# Held until the transaction ends. Another process learns immediately that the key is in use; the unique index would only make
# it wait.
_LOCK: Final = "SELECT pg_try_advisory_xact_lock($1)"
_READ: Final = """
SELECT fingerprint, status, body, location FROM operator_keys WHERE merchant_id = $1 AND key = $2 AND expires_at > $3
"""
# An expired key keeps its row until it is purged, so a new request takes over the row.
_WRITE: Final = """
INSERT INTO operator_keys (merchant_id, key, fingerprint, status, body, location, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (merchant_id, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status,
    body = EXCLUDED.body, location = EXCLUDED.location, expires_at = EXCLUDED.expires_at
"""


async def choose_id(key: IdempotencyKey | None, new_id: Callable[[], str]) -> str:
    """Return a new id in the shard of the key's record; without a key, on a node that responds. Raises CONNECTION_ERRORS."""
    await every_shard()
    if key is not None:
        shard = shard_of(_slot_of(key.key))
        return next(id_ for id_ in (new_id() for _ in range(_MAX_CANDIDATES)) if shard_of(id_) == shard)
    for _ in range(_MAX_NODES_TRIED):
        chosen = next(filter(is_available, (new_id() for _ in range(64))), None) or new_id()
        # A node is known to be down for one second only. Connect, to find out before anything is written: a failed write could
        # not be repeated under another id, because it may have been committed.
        with contextlib.suppress(*CONNECTION_ERRORS):
            async with connection(chosen):
                return chosen
    return chosen


async def run_for_operator(
    work: UnitOfWorkRunner,
    box: SecretBox,
    context: RequestContext,
    merchant_id: str,
    action: Action,
    *,
    as_database_owner: bool = False,
) -> CommandResult:
    """Run an operator's action on a merchant once per key.

    The action and the key's record commit together, or, in different shards, as `_once_across_shards` says.
    `as_database_owner` is for actions that delete transfers and events.
    Raises IDEMPOTENCY_KEY_IN_FLIGHT, UNAVAILABLE, and the action's refusals that are not stored. Cancelling the caller does not
    cancel the action.
    """
    key = context.key

    async def once() -> CommandResult:
        await every_shard()  # the first connection of the process finds out what shards there are
        if key is None:
            return await _act(merchant_id, action, as_database_owner)
        is_same_shard = shard_of(merchant_id) == shard_of(_slot_of(key.key))
        run = _once if is_same_shard else _once_across_shards
        return await run(box, context, key, merchant_id, action, as_database_owner)

    async def alone() -> CommandResult:
        with in_flight(_IN_FLIGHT, key):
            return await with_retries(once, retry_safe=key is not None)

    return await work.run_to_completion(alone())


async def _act(merchant_id: str, action: Action, as_database_owner: bool) -> CommandResult:
    async with transaction(merchant_id, as_database_owner=as_database_owner) as conn:
        return await action(conn)


async def _once(
    box: SecretBox, context: RequestContext, key: IdempotencyKey, merchant_id: str, action: Action, as_database_owner: bool
) -> CommandResult:
    async with transaction(merchant_id, as_database_owner=as_database_owner) as conn:
        stored, _ = await _read(conn, box, context, key)
        if stored is not None:
            return stored
        try:
            result = await action(conn)
        except Problem as problem:
            result = _stored_refusal(context, key, problem)
        return await _write(conn, box, key, result)


async def _once_across_shards(
    box: SecretBox, context: RequestContext, key: IdempotencyKey, merchant_id: str, action: Action, as_database_owner: bool
) -> CommandResult:
    """Delete a merchant whose shard is not that of the key's record.

    First the record says that the action has begun, then the action commits, then the record has the result. A process may be
    killed in between. A repeat then deletes the merchant, or finds that it is gone, and reports success in both cases.
    """
    async with _ACROSS_SHARDS, transaction(_slot_of(key.key)) as conn:
        stored, has_begun = await _read(conn, box, context, key)
        if stored is not None:
            return stored
        if not has_begun:
            now = truncate(datetime.now(UTC))
            begun = (key.fingerprint, UNFINISHED, b"", None, now + KEY_LIFETIME)
            await execute_in_own_transaction(_slot_of(key.key), _WRITE, _slot_of(key.key), key.key, *begun)
        try:
            result = await _act(merchant_id, action, as_database_owner)
        except Problem as problem:
            was_done = has_begun and problem.code == "NOT_FOUND"
            result = CommandResult(204, b"") if was_done else _stored_refusal(context, key, problem)
        return await _write(conn, box, key, result)


async def _read(
    conn: "PoolConnectionProxy[Any]", box: SecretBox, context: RequestContext, key: IdempotencyKey
) -> tuple[CommandResult | None, bool]:
    """Return the stored result, if there is one, and whether the action has begun earlier. Raises IDEMPOTENCY_KEY_IN_FLIGHT."""
    if not await conn.fetchval(_LOCK, _lock_number(key.key)):
        raise Problem("IDEMPOTENCY_KEY_IN_FLIGHT")
    # Read after the lock is taken: its previous holder has committed by now.
    found = await conn.fetchrow(_READ, _slot_of(key.key), key.key, truncate(datetime.now(UTC)))
    result = stored_result(None if found is None else KeyRecord(*found), key, context)
    return None if result is None else unseal(box, _purpose(key), result), found is not None


async def _write(conn: "PoolConnectionProxy[Any]", box: SecretBox, key: IdempotencyKey, result: CommandResult) -> CommandResult:
    """Store the result under the key, and return it."""
    record = record_of(key, seal(box, _purpose(key), result))
    assert record is not None, "operator actions take one transaction"
    expires_at = truncate(datetime.now(UTC)) + KEY_LIFETIME
    values = (record.fingerprint, record.status, record.body, record.location, expires_at)
    await conn.execute(_WRITE, _slot_of(key.key), key.key, *values)
    return result


def _stored_refusal(context: RequestContext, key: IdempotencyKey, problem: Problem) -> CommandResult:
    """Return the refusal to store; raise it if it is not stored."""
    if not is_stored(key, problem.status):
        raise problem
    return refuse(problem, context, stored=True)


def _purpose(key: IdempotencyKey) -> str:
    return f"operator/answer/{key.key}"


def _slot_of(key: str) -> str:
    """Return a UUID that depends on the key alone, and is the same in PostgreSQL: md5('operator key ' || key)::uuid."""
    return str(UUID(bytes=hashlib.md5(f"operator key {key}".encode(), usedforsecurity=False).digest()))


def _lock_number(key: str) -> int:
    """Return the key as a signed 64-bit number, which advisory locks need."""
    return int.from_bytes(hashlib.sha256(f"operator key {key}".encode()).digest()[:8], signed=True)
