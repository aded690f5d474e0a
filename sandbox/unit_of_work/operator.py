"""Run the operator's actions under the operator's idempotency keys.

These keys have a table of their own, because a merchant that is being created has no keys yet. As everywhere, an action and
the record of its key commit together.
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.engine import transaction
from sandbox.domain.clock import truncate
from sandbox.domain.errors import Problem
from sandbox.domain.idempotency import is_stored, record_of, refuse, stored_result
from sandbox.domain.unit import CommandResult, KeyRecord, RequestContext
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed import seal, unseal
from sandbox.unit_of_work.transaction import with_retries
from sandbox.unit_of_work.write import KEY_LIFETIME

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Action = Callable[["PoolConnectionProxy[Any]"], Awaitable[CommandResult]]
"""Runs in the transaction, and again if the transaction is retried. To refuse with 404, 409 or 422, it raises Problem before it
writes anything."""

_IN_FLIGHT: Final = "operator"
"""The operator's merchant id in `in_flight`. No real merchant id looks like it."""

# Held until the transaction ends. Another process learns at once that the key is in use; the unique index would only make it
# wait.
_LOCK: Final = "SELECT pg_try_advisory_xact_lock($1)"
_READ: Final = "SELECT fingerprint, status, body, location FROM operator_keys WHERE key = $1 AND expires_at > $2"
# An expired key keeps its row until it is purged, so a new request takes over the row.
_WRITE: Final = """
INSERT INTO operator_keys (key, fingerprint, status, body, location, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status, body = EXCLUDED.body,
    location = EXCLUDED.location, expires_at = EXCLUDED.expires_at
"""


async def run_for_operator(
    work: UnitOfWorkRunner,
    box: SecretBox,
    context: RequestContext,
    merchant_id: str,
    action: Action,
    *,
    as_database_owner: bool = False,
) -> CommandResult:
    """Run an operator's action on a merchant once per key. The action and the key's record commit together.

    `as_database_owner` is for actions that delete transfers and events.
    Raises IDEMPOTENCY_KEY_IN_FLIGHT, UNAVAILABLE, and the action's refusals that are not stored. Cancelling the caller does not
    cancel the action.
    """

    async def alone() -> CommandResult:
        with in_flight(_IN_FLIGHT, context.key):
            once = partial(_once, box, context, merchant_id, action, as_database_owner)
            return await with_retries(once, retry_safe=context.key is not None)

    return await work.run_to_completion(alone())


async def _once(
    box: SecretBox, context: RequestContext, merchant_id: str, action: Action, as_database_owner: bool
) -> CommandResult:
    key = context.key
    async with transaction(merchant_id, as_database_owner=as_database_owner) as conn:
        if key is None:
            return await action(conn)
        purpose = f"operator/answer/{key.key}"
        if not await conn.fetchval(_LOCK, _lock_number(key.key)):
            raise Problem("IDEMPOTENCY_KEY_IN_FLIGHT")
        # Read after the lock is taken: its previous holder has committed by now.
        now = truncate(datetime.now(UTC))
        found = await conn.fetchrow(_READ, key.key, now)
        result = stored_result(None if found is None else KeyRecord(*found), key, context)
        if result is not None:
            return unseal(box, purpose, result)
        try:
            result = seal(box, purpose, await action(conn))
        except Problem as problem:
            if not is_stored(key, problem.status):
                raise
            result = refuse(problem, context, stored=True)
        record = record_of(key, result)
        assert record is not None, "operator actions take one transaction"
        await conn.execute(_WRITE, key.key, record.fingerprint, record.status, record.body, record.location, now + KEY_LIFETIME)
    return unseal(box, purpose, result)


def _lock_number(key: str) -> int:
    """Return the key as a signed 64-bit number, which advisory locks need."""
    return int.from_bytes(hashlib.sha256(f"operator key {key}".encode()).digest()[:8], signed=True)
