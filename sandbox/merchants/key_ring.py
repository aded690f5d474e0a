"""API keys → whose they are, with the merchant's rate limit and faults of the API."""

import asyncio
import hashlib
import time
from typing import Final

from sandbox.db.engine import connection, db_errors_as_503
from sandbox.domain.errors import Problem
from sandbox.domain.fault import to_fault
from sandbox.domain.unit import Effect, UnitOfWork
from sandbox.faults.store import FAULTS_OF
from sandbox.http.request import Caller

_FORGET_AFTER: Final = 0.5
"""Seconds that a key is remembered: a revoked one must stop working within one second in every process."""
_REMEMBER: Final = 10_000
_CHANGE_CALLERS: Final = {Effect.CALLERS_CHANGED, Effect.WORLD_RESET, Effect.WORLD_RESTORED}

_LOOKUP: Final = f"""
SELECT k.merchant_id::text AS merchant_id, k.id::text AS id, k.role, m.rate_limit,
    ARRAY({FAULTS_OF.format(merchant="k.merchant_id", target="api")}) AS faults
FROM (SELECT merchant_id, id, role FROM api_keys WHERE key_hash = $1 AND revoked_at IS NULL OFFSET 0) k
CROSS JOIN LATERAL (SELECT rate_limit FROM merchants WHERE merchant_id = k.merchant_id OFFSET 0) m
"""  # noqa: S608 -- constants


class KeyRing:
    """API keys by their SHA-256, remembered for half a second; only hashes are kept."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[float, Caller]] = {}
        self._asked: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._forgotten = 0

    async def caller(self, api_key: str) -> Caller:
        """A name for the key. Raises INVALID_API_KEY, or UNAVAILABLE if PostgreSQL is away."""
        # The comparison is of SHA-256 values, inside an index: its time tells nothing about a key.
        digest = hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        task = self._asked.get(digest)
        if task is None:
            # Requests that come together with a forgotten key ask once.
            task = self._asked[digest] = asyncio.create_task(self._look_up(digest))
            task.add_done_callback(lambda done: self._asked.get(digest) is done and self._asked.pop(digest))
        found = await asyncio.shield(task)
        if found is None:
            raise Problem("INVALID_API_KEY")
        return found

    async def committed(self, unit: UnitOfWork) -> None:
        """Ask anew for a merchant's keys where a unit changed what is known with them."""
        if unit.effects & _CHANGE_CALLERS:
            self.forget(unit.merchant_id)

    def forget(self, merchant_id: str) -> None:
        """Ask anew for a merchant's keys: what is known with them has changed."""
        self._known = {digest: known for digest, known in self._known.items() if known[1].merchant_id != merchant_id}
        # Whose answer is under way may have been asked for before the change: nobody else joins it, and it is not kept.
        self._asked.clear()
        self._forgotten += 1

    async def _look_up(self, digest: bytes) -> Caller | None:
        asked, forgotten = time.monotonic(), self._forgotten
        async with db_errors_as_503(), connection() as conn:
            record = await conn.fetchrow(_LOOKUP, digest)
        if record is None:
            self._known.pop(digest, None)
            return None
        found = Caller(
            record["merchant_id"],
            record["id"],
            record["role"],
            record["rate_limit"],
            tuple(to_fault(*fault) for fault in record["faults"]),
        )
        if len(self._known) >= _REMEMBER:
            self._known.clear()
        if forgotten == self._forgotten:
            # Counted from before the question was asked, so that the answer's own way does not lengthen a key's life.
            self._known[digest] = (asked + _FORGET_AFTER, found)
        return found
