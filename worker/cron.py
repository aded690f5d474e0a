"""Jobs that run at fixed times of the host's clock. arq runs each in one worker."""

import asyncio
import contextlib
from typing import Any, Final

import msgspec
import structlog
from arq.connections import RedisSettings, create_pool
from arq.cron import CronJob, cron
from arq.worker import Worker

from sandbox.infrastructure.backoff import backoff
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS
from sandbox.infrastructure.outages import Outage
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.users.sales.scheduled import ScheduledSales

_QUEUE: Final = "psp:jobs"
_SECONDS_BETWEEN_PAYMENTS: Final = 10
"""How often workers look for sales that are due. Each merchant's clock has its own :00 and :30."""
_PAYMENT_SECONDS: Final = 600
"""Time limit of a job that pays sales. The next job continues."""
_STABLE_SECONDS: Final = 10.0
"""A connection to Redis that lasted this long resets the backoff: its loss is a new outage."""
_log = structlog.get_logger()


async def pay_sales(ctx: dict[str, Any]) -> None:
    """Pay the sales that are due (arq cron job). Even if two workers ran it, each sale would be paid only once."""
    sales: ScheduledSales = ctx["sales"]
    try:
        await sales.pay_all()
    except CONNECTION_ERRORS as error:
        _log.warning("sales_run_interrupted", error=repr(error)[:300], note="the next run pays the rest")


def cron_jobs() -> list[CronJob]:
    """Return the cron jobs."""
    seconds = set(range(0, 60, _SECONDS_BETWEEN_PAYMENTS))
    return [cron(pay_sales, second=seconds, timeout=_PAYMENT_SECONDS, max_tries=1, keep_result=0)]


async def run_cron_jobs(redis_url: str, sales: ScheduledSales) -> None:
    """Run the cron jobs until cancelled. While Redis is unavailable, none runs."""
    outage = Outage("redis_unavailable", note="no scheduled jobs run")
    clock = asyncio.get_running_loop().time
    # arq's worker ends when Redis becomes unavailable.
    async for attempt in backoff(0.2, 2.0, REDIS_ERRORS, outage.log):
        started = clock()
        with attempt:
            await _run_until_outage(redis_url, sales)
        if clock() - started > _STABLE_SECONDS:
            attempt.retry_state.attempt_number = 1


async def _run_until_outage(redis_url: str, sales: ScheduledSales) -> None:
    settings = RedisSettings.from_dsn(redis_url)
    settings.conn_timeout, settings.conn_retries = 2, 0
    serialization: dict[str, Any] = {"job_serializer": _pack, "job_deserializer": msgspec.msgpack.decode}
    redis = await create_pool(settings, **serialization)
    worker = Worker(
        cron_jobs=cron_jobs(),
        redis_pool=redis,
        queue_name=_QUEUE,
        max_tries=1,
        handle_signals=False,
        health_check_interval=60,
        ctx={"sales": sales},
        **serialization,
    )
    try:
        await worker.async_run()
    finally:
        # arq's own `close` raises the CancelledError of the first job it cancels, and leaves the connections open.
        for job in worker.tasks.values():
            job.cancel()
        await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
        with contextlib.suppress(*REDIS_ERRORS):
            await redis.aclose(close_connection_pool=True)


def _pack(job: dict[str, Any]) -> bytes:
    """Serialize a job as MessagePack. arq's default is pickle, which can execute code when it reads data."""
    return msgspec.msgpack.encode(job, enc_hook=repr)
