"""Look up and cache the caller of an API key, with the merchant's rate limit and API faults."""

import asyncio
import hashlib
import time
from typing import Final

from sandbox.domain.errors import Problem
from sandbox.domain.unit import Effect, UnitOfWork
from sandbox.http.fault import to_fault
from sandbox.http.request import Caller
from sandbox.infrastructure.db.engine import connection, db_errors_as_503, shared_connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.tasks import retrieve_error
from sandbox.worlds.merchants.key_format import merchant_of

_TTL_SECONDS: Final = 0.75
"""How long a key is cached. A revoked key must stop working within one second in every process. With many merchants at a time,
looking up keys takes more CPU time than anything else but the transactions."""
_MAX_CACHED_KEYS: Final = 10_000
_CHANGE_REQUEST_POLICY: Final = {Effect.REQUEST_POLICY_CHANGED, Effect.WORLD_RESET, Effect.WORLD_RESTORED}

_SQL: Final = read_statements(__name__)


class KeyRing:
    """Caches the callers of API keys for 0.75 seconds. It stores only the SHA-256 of a key."""

    def __init__(self) -> None:
        self._cache: dict[bytes, tuple[float, Caller]] = {}
        self._lookups: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._generation = 0

    async def caller(self, api_key: str) -> Caller:
        """Return the key's caller. Raises INVALID_API_KEY, or UNAVAILABLE if PostgreSQL is down."""
        # An index compares SHA-256 values, so the time it takes reveals nothing about a key.
        digest = hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()
        cached = self._cache.get(digest)
        if cached is not None and cached[0] > time.monotonic():
            return cached[1]
        task = self._lookups.get(digest)
        if task is None:
            # Concurrent requests with the same key share one lookup.
            task = self._lookups[digest] = asyncio.create_task(self._look_up(digest, merchant_of(api_key)))
            task.add_done_callback(lambda done: self._lookups.get(digest) is done and self._lookups.pop(digest))
            task.add_done_callback(retrieve_error)
        caller = await asyncio.shield(task)
        if caller is None:
            raise Problem("INVALID_API_KEY")
        return caller

    async def committed(self, unit: UnitOfWork) -> None:
        """Drop the merchant's keys from the cache if a unit of work changed what is cached with them."""
        if unit.effects & _CHANGE_REQUEST_POLICY:
            self.forget(unit.merchant_id)

    def forget(self, merchant_id: str) -> None:
        """Drop a merchant's keys from the cache."""
        self._cache = {digest: cached for digest, cached in self._cache.items() if cached[1].merchant_id != merchant_id}
        # A lookup in progress may have read the state before the change. Do not let new requests share it, and do not cache
        # its result.
        self._lookups.clear()
        self._generation += 1

    async def _look_up(self, digest: bytes, merchant_id: str | None) -> Caller | None:
        started, generation = time.monotonic(), self._generation
        record = None
        async with db_errors_as_503():
            merchant_id = merchant_id or await recorded_merchant(digest)
            if merchant_id is not None:
                async with connection(merchant_id) as conn:
                    record = await conn.fetchrow(_SQL["lookup"], merchant_id, digest)
        if merchant_id is None or record is None:
            self._cache.pop(digest, None)
            return None
        caller = Caller(
            merchant_id,
            record["id"],
            record["role"],
            record["rate_limit"],
            tuple(to_fault(fault) for fault in record["faults"]),
        )
        if len(self._cache) >= _MAX_CACHED_KEYS:
            self._cache.clear()
        if generation == self._generation:
            # Count from before the query, so that a slow response does not keep a revoked key valid for longer.
            self._cache[digest] = (started + _TTL_SECONDS, caller)
        return caller


async def recorded_merchant(digest: bytes) -> str | None:
    """Return the merchant of a key that does not name it, by the key's SHA-256 digest. Raises CONNECTION_ERRORS."""
    async with shared_connection() as conn:
        found: str | None = await conn.fetchval(_SQL["merchant_of"], digest)
    return found
