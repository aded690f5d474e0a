"""Tell the workers that a merchant has work. A wake is a hint: losing it costs the time until the next sweep."""

import asyncio
from typing import Any, Final

import msgspec
import structlog
from arq.connections import ArqRedis, RedisSettings, create_pool

from sandbox.domain.unit import Effect, UnitOfWork
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks

QUEUE: Final = "psp:jobs"
JOB_NOTIFICATIONS: Final = "psp:job-notifications"
"""The channel that notifies workers of jobs."""
JOB: Final = "advance"
CREDIT_JOB: Final = "credit"
WORKER_SEEN: Final = "psp:worker-seen"
"""A key that workers keep alive while they live."""
_MARK: Final = "psp:woken:"
_MARK_MILLISECONDS: Final = 1000
_WAITING: Final = 10_000
_PATIENCE: Final = 30.0
"""Seconds for as many wakes as may wait."""
_log = structlog.get_logger()


def redis_settings(redis_url: str) -> RedisSettings:
    """arq's settings for a Redis that may be away: fail soon, the caller goes on without."""
    settings = RedisSettings.from_dsn(redis_url)
    settings.conn_timeout = 2
    settings.conn_retries = 0
    return settings


def pack(job: dict[str, Any]) -> bytes:
    """A job as MessagePack: arq's own choice is pickle, which runs what it reads."""
    return msgspec.msgpack.encode(job, enc_hook=repr)


async def connect(settings: RedisSettings) -> ArqRedis:
    """arq's own connections. Raises RedisError or OSError."""
    return await create_pool(settings, default_queue_name=QUEUE, job_serializer=pack, job_deserializer=msgspec.msgpack.decode)


def mark(merchant_id: str, job: str = JOB) -> str:
    """The key that says that a job for the merchant waits in the queue and has not begun."""
    return f"{_MARK}{job}:{merchant_id}"


_MAKE_WORK_DUE: Final = {Effect.WORK_DUE, Effect.WORLD_RESTORED}
_MAKE_CREDITS_WAIT: Final = {Effect.BULK_CREDIT_WAITS, Effect.WORLD_RESTORED}


class Waker:
    """Sends wakes in the background, a merchant's at most once at a time; never fails and never blocks the caller."""

    def __init__(self, redis_url: str) -> None:
        self._settings = redis_settings(redis_url)
        self._redis: ArqRedis | None = None
        self._wakes: dict[tuple[str, str], None] = {}
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._down = False

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._send_all())

    def wake(self, merchant_id: str) -> None:
        """Say that the merchant has payout steps or deliveries that are due."""
        self._add(merchant_id, JOB)

    def wake_credit(self, merchant_id: str) -> None:
        """Say that the merchant has a bulk credit to be worked off."""
        self._add(merchant_id, CREDIT_JOB)

    async def committed(self, unit: UnitOfWork) -> None:
        """Wake workers for what a committed unit left to do."""
        due = unit.next_due
        if not unit.is_quiet and ((due is not None and due <= unit.now) or unit.deliveries or unit.effects & _MAKE_WORK_DUE):
            self.wake(unit.merchant_id)
        if unit.effects & _MAKE_CREDITS_WAIT:
            self.wake_credit(unit.merchant_id)

    def _add(self, merchant_id: str, job: str) -> None:
        if len(self._wakes) < _WAITING:
            self._wakes[merchant_id, job] = None
            self._some.set()

    async def close(self) -> None:
        """Stop sending; what was not sent is found by the sweep."""
        if self._task is not None:
            await end_tasks(self._task)
        if self._redis is not None:
            await self._redis.aclose()

    async def _connection(self) -> ArqRedis:
        if self._redis is None:
            self._redis = await connect(self._settings)
        return self._redis

    async def _send_all(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            wakes, self._wakes = self._wakes, {}
            try:
                # A Redis that hangs says nothing, for ever.
                async with asyncio.timeout(_PATIENCE):
                    redis = await self._connection()
                    for merchant_id, job in wakes:
                        await _enqueue(redis, merchant_id, job)
                    await redis.publish(JOB_NOTIFICATIONS, b"")
                self._down = False
            except REDIS_ERRORS as error:
                if not self._down:
                    _log.warning("redis_away", error=repr(error)[:300], note="the sweep finds the work")
                self._down = True
                await asyncio.sleep(0.2)


async def _enqueue(redis: ArqRedis, merchant_id: str, job: str) -> None:
    # A job that waits will see this work too, so one is enough. The worker takes the mark away before it looks for
    # work: a wake that comes later is a new job, and none is lost. The mark lapses, in case this process dies between
    # the two steps.
    if await redis.set(mark(merchant_id, job), b"1", px=_MARK_MILLISECONDS, nx=True):
        await redis.enqueue_job(job, merchant_id)
