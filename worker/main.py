"""A worker process: runs due payout steps, delivers webhooks, credits wallets, polls vendors, and sweeps for missed work.

arq delivers wake-ups through Redis. Without Redis the sweep finds the work, more slowly. Without PostgreSQL the worker waits.
"""

import asyncio
import contextlib
import gc
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
import uvloop
from arq.cron import CronJob, cron

from sandbox.aggregator.clients import HttpVendor, OwnVendor
from sandbox.aggregator.poll import Poller
from sandbox.db.engine import CONNECTION_ERRORS, close_pool, open_pool
from sandbox.feed.service import FeedService
from sandbox.infrastructure import tracing, wake
from sandbox.infrastructure.backoff import backoff
from sandbox.infrastructure.logs import end_log_buffering
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.settings import Settings
from sandbox.infrastructure.tasks import end_tasks
from sandbox.infrastructure.wake import CREDITS, DELIVERIES, QUEUE, STEPS, WORKER_SEEN, connect, pack, redis_settings
from sandbox.journal.journal import Journal
from sandbox.live.feed import LiveFeed
from sandbox.runtime.open_files import raise_open_file_limit
from sandbox.runtime.process_start import report_ready, start_process
from sandbox.sales.scheduled import ScheduledSales
from sandbox.scenarios.builtin import load_catalogue
from sandbox.server.readiness import Readiness
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.summary_cache import SummaryCache
from sandbox.webhooks.attempt import AttemptRunner
from sandbox.webhooks.deliver import Deliverer
from sandbox.webhooks.sender import WebhookSender
from worker.aggregate import AggregateLoop
from worker.credit import create_bulk_credit_tasks
from worker.health import HealthServer
from worker.job_notifications import JobNotificationWorker
from worker.payout_steps import MerchantTimers, PayoutStepRunner
from worker.sweep import sweep_forever

_HEARTBEAT_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 8.0
_SECONDS_BETWEEN_PAYMENTS: Final = 10
"""How often workers look for sales that are due. Each merchant's clock has its own :00 and :30."""
_PAYMENT_SECONDS: Final = 600
"""Time limit of a job that pays sales. The next job continues."""
_STABLE_SECONDS: Final = 10.0
"""A connection to Redis that lasted this long resets the backoff: its loss is a new outage."""
WakeHandlers = Mapping[str, Callable[[str], None]]
"""For each kind of work, the function that wakes a merchant for it. Called in this order."""
_log = structlog.get_logger()


async def take_wake_ups(ctx: dict[str, Any]) -> None:
    """Start the due steps, deliveries and bulk credits of all merchants woken since the last job (arq job).

    If it is lost, the next job takes its wake-ups, or the next sweep finds the work.
    """
    wake_handlers: WakeHandlers = ctx["wake_handlers"]
    merchants: dict[str, list[str]] = defaultdict(list)
    for kind, merchant_id in await wake.take_wake_ups(ctx["redis"]):
        merchants[kind].append(merchant_id)
    for kind, handler in wake_handlers.items():
        for merchant_id in merchants[kind]:
            handler(merchant_id)


async def pay_sales(ctx: dict[str, Any]) -> None:
    """Pay the sales that are due (arq cron job).

    arq runs it in one worker. Even if two workers ran it, each sale would be paid only once.
    """
    sales: ScheduledSales = ctx["sales"]
    try:
        await sales.pay_all()
    except CONNECTION_ERRORS as error:
        _log.warning("sales_run_interrupted", error=repr(error)[:300], note="the next run pays the rest")


def cron_jobs() -> list[CronJob]:
    """Return the cron jobs, which run at fixed times of the host's clock."""
    seconds = set(range(0, 60, _SECONDS_BETWEEN_PAYMENTS))
    return [cron(pay_sales, second=seconds, timeout=_PAYMENT_SECONDS, max_tries=1, keep_result=0)]


async def listen_forever(settings: Settings, wake_handlers: WakeHandlers, sales: ScheduledSales) -> None:
    """Run the jobs that arrive through Redis.

    arq's worker ends when Redis becomes unavailable. It is restarted, with an increasing delay.
    """

    def log_outage(error: BaseException) -> None:
        _log.warning("redis_unavailable", error=repr(error)[:300], note="the sweep finds the work")

    clock = asyncio.get_running_loop().time
    async for attempt in backoff(0.2, 2.0, REDIS_ERRORS, log_outage):
        started = clock()
        with attempt:
            await _listen(settings, wake_handlers, sales)
        if clock() - started > _STABLE_SECONDS:
            attempt.retry_state.attempt_number = 1


async def _listen(settings: Settings, wake_handlers: WakeHandlers, sales: ScheduledSales) -> None:
    worker = JobNotificationWorker(
        functions=[take_wake_ups],
        cron_jobs=cron_jobs(),
        redis_pool=await connect(redis_settings(settings.redis_url)),
        queue_name=QUEUE,
        max_jobs=100,
        job_timeout=30,
        keep_result=0,
        max_tries=1,
        handle_signals=False,
        health_check_interval=60,
        ctx={"wake_handlers": wake_handlers, "sales": sales},
        job_serializer=pack,
        job_deserializer=msgspec.msgpack.decode,
    )
    heartbeat = asyncio.create_task(_heartbeat(settings))
    try:
        await worker.async_run()
    finally:
        await end_tasks(heartbeat)
        with contextlib.suppress(*REDIS_ERRORS):
            await worker.close()


async def _heartbeat(settings: Settings) -> None:
    """Refresh the key that tells the API a worker is alive."""
    from redis.asyncio import Redis

    redis: Redis = Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2)
    try:
        while True:
            with contextlib.suppress(*REDIS_ERRORS):
                await redis.set(WORKER_SEEN, b"1", px=5000)
            await asyncio.sleep(_HEARTBEAT_SECONDS)
    finally:
        await redis.aclose()


async def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then finish the running batches."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await open_pool(settings.database_url, settings.pool_size)
    sender = WebhookSender(settings.webhook_allow)
    live_feed = LiveFeed(settings.redis_url)
    live_feed.start()
    notifier = Notifier()
    runner = UnitOfWorkRunner(load_catalogue(), notifier, merchants_at_once=settings.merchants_per_transaction)
    box = SecretBox(settings.secret_key)
    journal = Journal(settings.redis_url, live_feed.notes)
    journal.start()
    timers = MerchantTimers(lambda merchant_id: deliverer.wake(merchant_id))
    deliverer = Deliverer(AttemptRunner(sender, box, timers.later, live_feed.notes, journal))
    step_runner = PayoutStepRunner(runner, deliverer, settings.merchants_per_transaction)
    bulk_credit_tasks = create_bulk_credit_tasks(runner, live_feed.notes)
    summaries = SummaryCache(settings.redis_url)
    notifier.before_commit.append(summaries.committing)
    notifier.after_commit += [step_runner.committed, live_feed.committed]
    vendors = HttpVendor(settings.webhook_allow)
    aggregate = AggregateLoop(Poller(box, OwnVendor(FeedService()), vendors), live_feed.notes)
    # Steps come before deliveries, so that a transaction that runs a merchant's steps also claims its due deliveries.
    wake_handlers = {STEPS: step_runner.wake, DELIVERIES: step_runner.wake_deliveries, CREDITS: bulk_credit_tasks.wake}

    def wake_all(merchant_id: str) -> None:
        step_runner.wake(merchant_id)
        step_runner.wake_deliveries(merchant_id)

    tasks = [
        asyncio.create_task(listen_forever(settings, wake_handlers, ScheduledSales(runner))),
        asyncio.create_task(sweep_forever(wake_all, bulk_credit_tasks.wake)),
        asyncio.create_task(aggregate.run()),
    ]
    health = HealthServer(Readiness(settings.redis_url, with_worker=False), settings.public_url)
    try:
        if settings.metrics_port:
            try:
                await health.start(settings.host, settings.metrics_port)
            except OSError as error:
                sys.exit(f"settings: SANDBOX_METRICS_PORT {settings.metrics_port} cannot be used ({error.strerror}).")
        report_ready()
        ended = asyncio.create_task(stopped.wait())
        done, _ = await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {ended}:
            # The loops never end by themselves. Fail, so that the supervisor restarts this process.
            task.result()
            raise RuntimeError("a worker loop ended")
    finally:
        await end_tasks(*tasks)
        timers.cancel()
        await step_runner.stop(_STOP_SECONDS)
        await bulk_credit_tasks.stop(_STOP_SECONDS)
        await deliverer.stop(_STOP_SECONDS)
        await aggregate.stop(_STOP_SECONDS)
        await sender.close()
        await summaries.close()
        await vendors.close()
        await live_feed.close()
        await journal.close()
        await health.close()
        await close_pool()
        tracing.stop()
        end_log_buffering()


def main() -> None:
    """Run a worker. If a setting is not valid, print one line that names it and exit with code 1."""
    settings = start_process("worker")
    raise_open_file_limit()
    # All objects so far are permanent. Exclude them from garbage collection, whose pauses stop all work.
    gc.freeze()
    uvloop.run(run_worker(settings))


if __name__ == "__main__":
    main()
