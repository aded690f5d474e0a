"""Wake the workers when a merchant has work. A wake is a hint: if it is lost, the next sweep finds the work."""

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
"""The channel that notifies workers of new jobs."""
JOB: Final = "advance"
CREDIT_JOB: Final = "credit"
WORKER_SEEN: Final = "psp:worker-seen"
"""A key that expires soon and that running workers renew."""
_MARK: Final = "psp:woken:"
_MARK_MILLISECONDS: Final = 1000
_QUEUE_LIMIT: Final = 10_000
"""How many wakes may wait to be sent; the sweep covers the rest."""
_SEND_TIMEOUT: Final = 30.0
"""Seconds for sending all waiting wakes."""
_log = structlog.get_logger()


def redis_settings(redis_url: str) -> RedisSettings:
    """Return arq's settings for a Redis that may be unavailable: fail fast, because callers continue without it."""
    settings = RedisSettings.from_dsn(redis_url)
    settings.conn_timeout = 2
    settings.conn_retries = 0
    return settings


def pack(job: dict[str, Any]) -> bytes:
    """Serialize a job as MessagePack. arq's default is pickle, which can execute code when it reads data."""
    return msgspec.msgpack.encode(job, enc_hook=repr)


async def connect(settings: RedisSettings) -> ArqRedis:
    """Open arq's connection pool. Raises RedisError or OSError."""
    return await create_pool(settings, default_queue_name=QUEUE, job_serializer=pack, job_deserializer=msgspec.msgpack.decode)


def mark(merchant_id: str, job: str = JOB) -> str:
    """Return the key that marks a job for the merchant as queued and not started."""
    return f"{_MARK}{job}:{merchant_id}"


_MAKE_WORK_DUE: Final = {Effect.WORK_DUE, Effect.WORLD_RESTORED}
_MAKE_CREDITS_WAIT: Final = {Effect.BULK_CREDIT_WAITS, Effect.WORLD_RESTORED}


class Waker:
    """Sends wakes in the background, at most one per merchant and job at a time. Never fails and never blocks the caller."""

    def __init__(self, redis_url: str) -> None:
        self._settings = redis_settings(redis_url)
        self._redis: ArqRedis | None = None
        self._wakes: dict[tuple[str, str], None] = {}
        self._has_wakes = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._down = False

    def start(self) -> None:
        """Start sending."""
        self._task = asyncio.create_task(self._send_all())

    def wake(self, merchant_id: str) -> None:
        """Wake a worker for the merchant's due payout steps and deliveries."""
        self._add(merchant_id, JOB)

    def wake_credit(self, merchant_id: str) -> None:
        """Wake a worker for the merchant's bulk credits."""
        self._add(merchant_id, CREDIT_JOB)

    async def committed(self, unit: UnitOfWork) -> None:
        """Wake workers for the work that a committed unit left."""
        due = unit.next_due
        if not unit.is_quiet and ((due is not None and due <= unit.now) or unit.deliveries or unit.effects & _MAKE_WORK_DUE):
            self.wake(unit.merchant_id)
        if unit.effects & _MAKE_CREDITS_WAIT:
            self.wake_credit(unit.merchant_id)

    def _add(self, merchant_id: str, job: str) -> None:
        if len(self._wakes) < _QUEUE_LIMIT:
            self._wakes[merchant_id, job] = None
            self._has_wakes.set()

    async def close(self) -> None:
        """Stop sending. The sweep finds the work of wakes that were not sent."""
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
            await self._has_wakes.wait()
            self._has_wakes.clear()
            wakes, self._wakes = self._wakes, {}
            try:
                # A Redis that hangs would block this loop forever.
                async with asyncio.timeout(_SEND_TIMEOUT):
                    redis = await self._connection()
                    for merchant_id, job in wakes:
                        await _enqueue(redis, merchant_id, job)
                    await redis.publish(JOB_NOTIFICATIONS, b"")
                self._down = False
            except REDIS_ERRORS as error:
                if not self._down:
                    _log.warning("redis_unavailable", error=repr(error)[:300], note="the sweep finds the work")
                self._down = True
                await asyncio.sleep(0.2)


async def _enqueue(redis: ArqRedis, merchant_id: str, job: str) -> None:
    # A queued job will find this work too, so one job is enough. The worker deletes the mark before it looks for work, so
    # a later wake adds a new job and none is lost. The mark expires in case this process dies between the two steps.
    if await redis.set(mark(merchant_id, job), b"1", px=_MARK_MILLISECONDS, nx=True):
        await redis.enqueue_job(job, merchant_id)
