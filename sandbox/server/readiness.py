"""Whether this process can do its work: PostgreSQL and Redis answer, the schema is the newest, a worker lives.

Each part is asked by itself and waited for no longer than BOUND, whatever hangs. What hangs is not asked again meanwhile:
whoever looks next waits for the same question.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import asyncpg

from sandbox.db.engine import CONNECTION_ERRORS, connection
from sandbox.db.migrate import completed_migrations, migration_ids
from sandbox.domain.errors import Problem
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.wake import WORKER_SEEN

if TYPE_CHECKING:
    pass

BOUND: Final = 2.0
"""Seconds for each part; all are asked at the same time."""
_PATIENCE: Final = 5.0
"""Seconds after which Redis itself is given up, so that a question to it always ends."""

Missing = Mapping[str, str]
"""Part → what is wrong with it: `database`, `migrated`, `redis`, `worker`."""


class Readiness:
    """Looks at the stores. `with_worker` says whether a worker must have been seen too."""

    def __init__(self, redis_url: str, *, with_worker: bool = True, bound: float = BOUND) -> None:
        from redis.asyncio import Redis

        self._redis: Redis = Redis.from_url(redis_url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE)
        self._with_worker = with_worker
        self._bound = bound
        self._questions: dict[str, asyncio.Task[Missing]] = {}

    async def missing(self) -> Missing:
        """What is missing; nothing if the process is ready. Answers within the bound."""
        database, redis = await asyncio.gather(
            self._ask("database", _database, "PostgreSQL does not answer"),
            self._ask("redis", self._look_at_redis, "Redis does not answer"),
        )
        return {**database, **redis}

    async def require(self) -> None:
        """Raise UNAVAILABLE, naming each part that is missing, unless the process is ready."""
        missing = await self.missing()
        if missing:
            detail = f"Not ready: {'; '.join(missing.values())}."
            raise Problem("UNAVAILABLE", detail, errors=tuple(missing.items()), headers={"Retry-After": "1"})

    async def close(self) -> None:
        """Let Redis go. Questions that hang end with the pool that they hang on."""
        for question in self._questions.values():
            question.cancel()
        await self._redis.aclose()

    async def _ask(self, part: str, question: Callable[[], Awaitable[Missing]], silence: str) -> Missing:
        task = self._questions.get(part)
        if task is None:
            task = self._questions[part] = asyncio.ensure_future(question())
            task.add_done_callback(lambda _: self._questions.pop(part, None))
        # Not cancelled when it is late: ending a statement takes an answer of PostgreSQL's, too.
        await asyncio.wait({task}, timeout=self._bound)
        return task.result() if task.done() else {part: silence}

    async def _look_at_redis(self) -> Missing:
        try:
            is_seen = bool(await self._redis.exists(WORKER_SEEN))
        except REDIS_ERRORS:
            return {"redis": "Redis does not answer"}
        return {} if is_seen or not self._with_worker else {"worker": "no worker has been seen in the last 5 seconds"}


async def _database() -> Missing:
    try:
        async with connection() as conn:
            ran = await completed_migrations(conn)
    except (*CONNECTION_ERRORS, asyncpg.InvalidAuthorizationSpecificationError):
        return {"database": "PostgreSQL does not answer, or refuses the connection"}
    except asyncpg.PostgresError:
        ran = set()  # no table of migrations, or not even our role: a database that was never migrated
    known = migration_ids()
    if known <= ran:
        return {}
    return {"migrated": f"{len(known - ran)} of {len(known)} migrations have not run (python -m sandbox.db.migrate)"}
