"""The operator's idempotency keys. Creating a merchant has no merchant yet whose key it could be, so they have a table of
their own; an effect and the record of its key commit together there too.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from piccolo.query.methods.select import First

from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE, transaction
from sandbox.domain.clock import truncate
from sandbox.domain.errors import Problem, unavailable
from sandbox.domain.idempotency import is_stored, record_of, refuse, stored_answer
from sandbox.domain.unit import CommandResult, IdempotencyKey, KeyRecord, RequestContext
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.merchants.tables import OperatorKeys
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.keyed import to_the_end
from sandbox.unit_of_work.loop import ATTEMPTS
from sandbox.unit_of_work.sealed import opened, sealed
from sandbox.unit_of_work.store import KEY_LIFETIME

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Action = Callable[["PoolConnectionProxy[Any]"], Awaitable[CommandResult]]
"""Do it, in the transaction. May run again after a rollback. Raises Problem to refuse; a refusal that is stored (404, 409,
422) before it has written anything."""

_IN_FLIGHT: Final = "operator"
"""What stands for the merchant in `in_flight`; no merchant's id looks like it."""

# Held until the transaction ends, however it does. Another process is told at once that the key is in use; waiting for the
# row in the unique index would not tell it.
_LOCK: Final = "SELECT pg_try_advisory_xact_lock($1)"


async def run_for_operator(box: SecretBox, key: IdempotencyKey | None, origin: RequestContext, action: Action) -> CommandResult:
    """Run an action of the operator's once for its key; the effect and the key's record commit together.

    Raises IDEMPOTENCY_KEY_IN_FLIGHT, UNAVAILABLE, and what the action refuses with and is not stored. A caller that is
    cancelled does not take the action back.
    """

    async def alone() -> CommandResult:
        with in_flight(_IN_FLIGHT, key):
            return await _with_retries(box, key, origin, action)

    return await to_the_end(alone())


async def _with_retries(box: SecretBox, key: IdempotencyKey | None, origin: RequestContext, action: Action) -> CommandResult:
    for attempt in range(ATTEMPTS):
        try:
            return await _once(box, key, origin, action)
        except RETRYABLE:
            if attempt == ATTEMPTS - 1:
                raise unavailable("Too much contention; nothing of this request was done. Retry it.") from None
        except CONNECTION_ERRORS as error:
            # Lost in the COMMIT, it may have happened: only a key makes it safe to repeat.
            if key is None or attempt == ATTEMPTS - 1:
                raise unavailable("The database is unavailable; repeat the request.") from error
            await asyncio.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _once(box: SecretBox, key: IdempotencyKey | None, origin: RequestContext, action: Action) -> CommandResult:
    async with transaction() as conn:
        if key is None:
            return await action(conn)
        context = f"operator/answer/{key.key}"
        if not await conn.fetchval(_LOCK, _lock_number(key.key)):
            raise Problem("IDEMPOTENCY_KEY_IN_FLIGHT")
        # Not before the lock: whoever held it has committed by now.
        now = truncate(datetime.now(UTC))
        found = await _stored(key.key, now)
        answer = stored_answer(None if found is None else KeyRecord(**found), key, origin)
        if answer is not None:
            return opened(box, context, answer)
        try:
            answer = sealed(box, context, await action(conn))
        except Problem as problem:
            if not is_stored(key, problem.status):
                raise
            answer = refuse(problem, origin, key)
        record = record_of(key, answer)
        assert record is not None, "no action of the operator's takes several transactions"
        row = OperatorKeys(
            key=key.key,
            fingerprint=record.fingerprint,
            status=record.status,
            body=record.body,
            location=record.location,
            expires_at=now + KEY_LIFETIME,
        )
        # A lapsed key keeps its row until it is purged, so a new request takes the row over.
        others = [column for column in OperatorKeys.all_columns() if column is not OperatorKeys.key]
        await OperatorKeys.insert(row).on_conflict(target=OperatorKeys.key, action="DO UPDATE", values=others)
    return opened(box, context, answer)


def _stored(key: str, now: datetime) -> First:
    k = OperatorKeys
    found = k.select(k.fingerprint, k.status, k.body, k.location)
    return found.where(k.key == key, k.expires_at > now).first()


def _lock_number(key: str) -> int:
    """The key as a signed number of 64 bits, as an advisory lock has it."""
    return int.from_bytes(hashlib.sha256(f"operator key {key}".encode()).digest()[:8], signed=True)
