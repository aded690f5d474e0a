"""Wake the workers when a merchant has work. A wake-up is a hint: if it is lost, the next sweep finds the work.

Wake-ups are collected in a Redis set until a worker takes them all. There is one queued job for the whole set, however many
requests and merchants the wake-ups come from.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final
from uuid import uuid4

import msgspec
import structlog
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.constants import expires_extra_ms, job_key_prefix
from arq.jobs import serialize_job

from sandbox.domain.unit import Effect, UnitOfWork
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks

QUEUE: Final = "psp:jobs"
JOB_NOTIFICATIONS: Final = "psp:job-notifications"
"""The channel that notifies workers of new jobs."""
JOB: Final = "take_wake_ups"
STEPS: Final = "steps"
DELIVERIES: Final = "deliveries"
CREDITS: Final = "credits"
WORKER_SEEN: Final = "psp:worker-seen"
"""A key that expires soon and that running workers renew."""
_WAKE_UPS_KEY: Final = "psp:woken"
"""The set of wake-ups, each a kind of work and a merchant's id."""
_JOB_QUEUED_KEY: Final = "psp:woken:queued"
"""A key that exists while a job is queued and has not started."""
_JOB_QUEUED_TTL_MS: Final = 1000
_PAUSE: Final = 0.005
"""Seconds between bursts. The first wake-up after a pause is sent immediately."""
_QUEUE_LIMIT: Final = 10_000
"""Maximum number of unsent wake-ups. Further ones are dropped; the sweep finds their work."""
_SEND_TIMEOUT: Final = 30.0
"""Seconds for sending all queued wake-ups."""
_log = structlog.get_logger()


def redis_settings(redis_url: str) -> RedisSettings:
    """Return arq's settings. They make calls fail fast if Redis is unavailable, because callers continue without it."""
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


async def take_wake_ups(redis: ArqRedis) -> Iterable[tuple[str, str]]:
    """Take all wake-ups. Return the kind of work and the merchant of each. Raises RedisError or OSError."""
    async with redis.pipeline(transaction=False) as pipe:
        # Delete the key first: a wake-up that is added after the set was read queues a new job.
        pipe.delete(_JOB_QUEUED_KEY)
        pipe.spop(_WAKE_UPS_KEY, _QUEUE_LIMIT)
        _, wake_ups = await pipe.execute()
    return [(kind, merchant_id) for kind, _, merchant_id in (wake_up.decode().partition(":") for wake_up in wake_ups)]


_WORK_DUE_EFFECTS: Final = {Effect.WORK_DUE, Effect.WORLD_RESTORED}
_BULK_CREDIT_EFFECTS: Final = {Effect.BULK_CREDIT_PENDING, Effect.WORLD_RESTORED}


class Waker:
    """Sends wake-ups in the background, in bursts. Never fails and never blocks the caller."""

    def __init__(self, redis_url: str) -> None:
        self._settings = redis_settings(redis_url)
        self._redis: ArqRedis | None = None
        self._wake_ups: set[str] = set()
        self._has_wake_ups = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_redis_down = False

    def start(self) -> None:
        """Start sending."""
        self._task = asyncio.create_task(self._send_all())

    async def committed(self, unit: UnitOfWork) -> None:
        """Wake workers for the work that a committed unit left."""
        due, makes_work_due = unit.next_due, bool(unit.effects & _WORK_DUE_EFFECTS)
        if not unit.suppress_wakeups:
            if makes_work_due or (due is not None and due <= unit.now):
                self.wake(STEPS, unit.merchant_id)
            if makes_work_due or any(delivery.enabled for delivery in unit.deliveries):
                self.wake(DELIVERIES, unit.merchant_id)
        if unit.effects & _BULK_CREDIT_EFFECTS:
            self.wake(CREDITS, unit.merchant_id)

    def wake(self, kind: str, merchant_id: str) -> None:
        """Wake a worker for a kind of the merchant's work: STEPS, DELIVERIES or CREDITS that are due."""
        if len(self._wake_ups) < _QUEUE_LIMIT:
            self._wake_ups.add(f"{kind}:{merchant_id}")
            self._has_wake_ups.set()

    async def close(self) -> None:
        """Stop sending. The sweep finds the work of wake-ups that were not sent."""
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
            await self._has_wake_ups.wait()
            self._has_wake_ups.clear()
            wake_ups, self._wake_ups = self._wake_ups, set()
            try:
                # A Redis that hangs would block this loop forever.
                async with asyncio.timeout(_SEND_TIMEOUT):
                    redis = await self._connection()
                    await _send(redis, wake_ups)
                self._is_redis_down = False
            except REDIS_ERRORS as error:
                if not self._is_redis_down:
                    _log.warning("redis_unavailable", error=repr(error)[:300], note="the sweep finds the work")
                self._is_redis_down = True
                await asyncio.sleep(0.2)
            await asyncio.sleep(_PAUSE)


async def _send(redis: ArqRedis, wake_ups: set[str]) -> None:
    # A queued job takes these wake-ups too, so one job is enough. The worker deletes _JOB_QUEUED_KEY before it reads the
    # set, so a later wake-up adds a new job and none is lost. The key expires in case this process dies between the two steps.
    async with redis.pipeline(transaction=False) as pipe:
        pipe.sadd(_WAKE_UPS_KEY, *wake_ups)
        pipe.set(_JOB_QUEUED_KEY, b"1", px=_JOB_QUEUED_TTL_MS, nx=True)
        _, is_new_job = await pipe.execute()
    if is_new_job:
        await _queue_job(redis)


async def _queue_job(redis: ArqRedis) -> None:
    # Like arq's `enqueue_job`, which takes four round trips because it checks that the job's id is new. This id is random.
    job_id, now = uuid4().hex, time.time_ns() // 1_000_000
    async with redis.pipeline(transaction=False) as pipe:
        pipe.psetex(job_key_prefix + job_id, expires_extra_ms, serialize_job(JOB, (), {}, None, now, serializer=pack))
        pipe.zadd(QUEUE, {job_id: now})
        pipe.publish(JOB_NOTIFICATIONS, b"")
        await pipe.execute()
