"""Check readiness: PostgreSQL and Redis are available, all migrations have run, and a worker is running.

Each check has a timeout of CHECK_TIMEOUT. A check that hangs is not started again; later calls wait for the same one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import asyncpg

from sandbox.db.engine import CONNECTION_ERRORS, shared_connection
from sandbox.db.migrate import completed_migrations, migration_ids
from sandbox.domain.errors import Problem
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.wake import WORKER_SEEN

CHECK_TIMEOUT: Final = 2.0
"""Seconds per check; the checks run concurrently."""
_REDIS_TIMEOUT: Final = 5.0
"""Socket timeout in seconds, so that a check of Redis always ends."""

Unavailable = Mapping[str, str]
"""Part → error message. The parts are `database`, `migrated`, `redis` and `worker`."""


class Readiness:
    """Checks the stores and, if `with_worker`, that a worker is running."""

    def __init__(self, redis_url: str, *, with_worker: bool = True, timeout: float = CHECK_TIMEOUT) -> None:
        from redis.asyncio import Redis

        self._redis: Redis = Redis.from_url(redis_url, socket_timeout=_REDIS_TIMEOUT, socket_connect_timeout=_REDIS_TIMEOUT)
        self._with_worker = with_worker
        self._timeout = timeout
        self._checks: dict[str, asyncio.Task[Unavailable]] = {}

    async def find_unavailable(self) -> Unavailable:
        """Return the unavailable parts; none if the process is ready. Takes at most the timeout."""
        database, redis = await asyncio.gather(
            self._run("database", _check_database, "PostgreSQL is unavailable"),
            self._run("redis", self._check_redis, "Redis is unavailable"),
        )
        return {**database, **redis}

    async def require(self) -> None:
        """Raise UNAVAILABLE, naming each unavailable part, unless the process is ready."""
        unavailable = await self.find_unavailable()
        if unavailable:
            detail = f"Not ready: {'; '.join(unavailable.values())}."
            raise Problem("UNAVAILABLE", detail, errors=tuple(unavailable.items()), headers={"Retry-After": "1"})

    async def close(self) -> None:
        """Close the connection to Redis. A hanging check of the database ends when its pool closes."""
        for task in self._checks.values():
            task.cancel()
        await self._redis.aclose()

    async def _run(self, part: str, check: Callable[[], Awaitable[Unavailable]], timeout_message: str) -> Unavailable:
        task = self._checks.get(part)
        if task is None:
            task = self._checks[part] = asyncio.ensure_future(check())
            task.add_done_callback(lambda _: self._checks.pop(part, None))
        # Do not cancel a late check: cancelling a statement would also wait for PostgreSQL.
        await asyncio.wait({task}, timeout=self._timeout)
        return task.result() if task.done() else {part: timeout_message}

    async def _check_redis(self) -> Unavailable:
        try:
            has_worker = bool(await self._redis.exists(WORKER_SEEN))
        except REDIS_ERRORS:
            return {"redis": "Redis is unavailable"}
        return {} if has_worker or not self._with_worker else {"worker": "no worker has been seen in the last 5 seconds"}


async def _check_database() -> Unavailable:
    try:
        async with shared_connection() as conn:
            completed = await completed_migrations(conn)
    except (*CONNECTION_ERRORS, asyncpg.InvalidAuthorizationSpecificationError):
        return {"database": "PostgreSQL is unavailable or rejects the connection"}
    except asyncpg.PostgresError:
        completed = set()  # the migrations table or even our role is missing: the database was never migrated
    known = migration_ids()
    if known <= completed:
        return {}
    command = "python -m psp_sandbox.application sandbox.db.migrate"
    return {"migrated": f"{len(known - completed)} of {len(known)} migrations have not run ({command})"}
