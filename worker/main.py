"""A worker process: runs due payout steps, delivers webhooks, credits wallets, polls vendors, and sweeps for missed work.

Wake-ups arrive through Redis. Without Redis the sweep finds the work, more slowly. Without PostgreSQL the worker waits.
"""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
import uvloop

from sandbox.http.journal.journal import Journal
from sandbox.infrastructure import tracing
from sandbox.infrastructure.backoff import backoff
from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.infrastructure.live_feed import LiveFeed
from sandbox.infrastructure.logs import end_log_buffering
from sandbox.infrastructure.outages import Outage
from sandbox.infrastructure.redis_client import connect
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.redis_messages import RedisConnection, RedisSender
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.settings import Settings
from sandbox.infrastructure.tasks import end_tasks
from sandbox.infrastructure.wake import CREDITS, DELIVERIES, STEPS, WORKER_SEEN, take_wake_ups
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.server.dialects.dialect import load_dialects
from sandbox.server.dialects.registration import BUILT_IN
from sandbox.server.dialects.rendering import EventTranslator
from sandbox.server.readiness import Readiness
from sandbox.server.runtime.open_files import raise_open_file_limit
from sandbox.server.runtime.process_start import report_ready, start_process
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.aggregator.feed_clients import HttpVendor, OwnVendor
from sandbox.users.aggregator.poll import Poller
from sandbox.users.bulk_credit.process import credit_chunk, read_user_ids_to_fail
from sandbox.users.sales.scheduled import ScheduledSales
from sandbox.users.summary_cache import SummaryCache
from sandbox.users.vendor_feed.service import FeedService
from sandbox.webhooks.delivery.attempt import AttemptRunner
from sandbox.webhooks.delivery.deliverer import Deliverer
from sandbox.webhooks.delivery.receiver_time import receiver_time
from sandbox.webhooks.outbound.sender import WebhookSender
from worker.aggregate import AggregateLoop
from worker.cron import run_cron_jobs
from worker.health import HealthServer
from worker.merchant_tasks import MerchantTasks
from worker.payout_steps import MerchantTimers, PayoutStepRunner
from worker.sweep import sweep_forever

_HEARTBEAT_SECONDS: Final = 1.0
_HEARTBEAT_TIMEOUT_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 8.0
_MAX_CREDITED_MERCHANTS: Final = 2
"""Maximum number of merchants whose bulk credits are processed at the same time. Each needs a connection most of the time."""
WakeHandlers = Mapping[str, Callable[[str, int], None]]
"""For each kind of work, the function that wakes a merchant for it, with the wake-up's position. Called in this order."""
_log = structlog.get_logger()


async def listen_forever(redis_url: str, wake_handlers: WakeHandlers) -> None:
    """Start the due steps, deliveries and bulk credits of the merchants whose wake-ups arrive through Redis.

    If a wake-up is lost, the next sweep finds the work.
    """
    outage = Outage("redis_unavailable", note="the sweep finds the work")
    redis = RedisConnection(redis_url)
    try:
        async for attempt in backoff(0.2, 2.0, REDIS_ERRORS, outage.log):
            with attempt:
                while True:
                    wake_ups = await take_wake_ups(redis)
                    attempt.retry_state.attempt_number = 1  # connected: the next error starts a new outage
                    _call(wake_handlers, wake_ups)
    finally:
        await redis.close()


def _call(wake_handlers: WakeHandlers, wake_ups: Sequence[tuple[str, str, int]]) -> None:
    for kind, handler in wake_handlers.items():
        for woken_kind, merchant_id, position in wake_ups:
            if woken_kind == kind:
                handler(merchant_id, position)


async def _report_alive_forever(redis_url: str) -> None:
    """Refresh the key that tells the API a worker is alive."""
    redis = RedisConnection(redis_url)
    try:
        while True:
            with contextlib.suppress(*REDIS_ERRORS):
                await redis.execute([("SET", WORKER_SEEN, 1, "PX", 5000)], _HEARTBEAT_TIMEOUT_SECONDS)
            await asyncio.sleep(_HEARTBEAT_SECONDS)
    finally:
        await redis.close()


async def run_worker(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then finish the running batches."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await open_pool(settings.database_url, settings.pool_size)
    webhook_sender = WebhookSender(settings.webhook_allow)
    redis = connect(settings.redis_url)
    sender = RedisSender(settings.redis_url)
    live_feed = LiveFeed(sender)
    sender.start()
    notifier = Notifier()
    runner = UnitOfWorkRunner(load_catalogue(), notifier, merchants_at_once=settings.merchants_per_transaction)
    box = SecretBox(settings.secret_key)
    journal = Journal(redis, live_feed.notes)
    journal.start()
    translator = EventTranslator(load_dialects(BUILT_IN, settings.dialects))
    timers = MerchantTimers(lambda merchant_id: deliverer.wake(merchant_id))
    receivers = receiver_time(settings.clock_folder)
    deliverer = Deliverer(AttemptRunner(webhook_sender, box, timers.later, live_feed.notes, journal, receivers, translator))
    step_runner = PayoutStepRunner(runner, deliverer, settings.merchants_per_transaction)
    bulk_credit_tasks = MerchantTasks(
        "credit",
        _MAX_CREDITED_MERCHANTS,
        lambda merchant_id: credit_chunk(runner, merchant_id, read_user_ids_to_fail(), live_feed.notes),
    )
    summaries = SummaryCache(settings.redis_url)
    notifier.before_commit.append(summaries.committing)
    notifier.after_commit += [step_runner.committed, live_feed.committed]
    vendors = HttpVendor(settings.webhook_allow)
    aggregate = AggregateLoop(Poller(box, OwnVendor(FeedService()), vendors), live_feed.notes)
    # Steps come before deliveries, so that a transaction that runs a merchant's steps also claims its due deliveries.
    wake_handlers: WakeHandlers = {
        STEPS: step_runner.wake,
        DELIVERIES: lambda merchant_id, _: step_runner.wake_deliveries(merchant_id),
        CREDITS: lambda merchant_id, _: bulk_credit_tasks.wake(merchant_id),
    }

    def wake_all(merchant_id: str) -> None:
        step_runner.wake(merchant_id)
        step_runner.wake_deliveries(merchant_id)

    tasks = [
        asyncio.create_task(listen_forever(settings.redis_url, wake_handlers)),
        asyncio.create_task(_report_alive_forever(settings.redis_url)),
        asyncio.create_task(run_cron_jobs(settings.redis_url, ScheduledSales(runner))),
        asyncio.create_task(sweep_forever(wake_all, bulk_credit_tasks.wake)),
        asyncio.create_task(aggregate.run()),
    ]
    health = HealthServer(Readiness(redis, with_worker=False), settings.public_url)
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
        await webhook_sender.close()
        await summaries.close()
        await vendors.close()
        await sender.close()
        await journal.close()
        await health.close()
        await redis.aclose()
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
