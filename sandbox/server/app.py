"""Compose the API: every slice's operations, their middleware, and the objects that live as long as the process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litestar import Litestar
from litestar.types import ASGIApp

from sandbox.http.faults.injection import inject_before
from sandbox.http.faults.service import FaultService
from sandbox.http.journal.api import JournalApi
from sandbox.http.journal.journal import Journal
from sandbox.http.middleware import api_middleware
from sandbox.http.operation import Operation, operations_of
from sandbox.http.rate_limit import RateLimiter
from sandbox.http.routes import create_litestar
from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.infrastructure.live_feed import LiveFeed
from sandbox.infrastructure.live_subscriber import LiveSubscriber
from sandbox.infrastructure.redis_client import connect
from sandbox.infrastructure.redis_messages import RedisSender
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.settings import Settings
from sandbox.infrastructure.wake import Waker
from sandbox.payouts.balance.flows import FlowService
from sandbox.payouts.balance.service import BalanceService
from sandbox.payouts.directory.api import DirectoryApi
from sandbox.payouts.directory.loader import load_directory
from sandbox.payouts.reads import PayoutReads
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.payouts.scenarios.service import ScenarioService
from sandbox.payouts.service import PayoutService
from sandbox.payouts.simulation import SimulationService
from sandbox.payouts.waiting import PayoutWaits
from sandbox.server.console.app import Console
from sandbox.server.dialects.dialect import Services, load_dialects
from sandbox.server.dialects.openapi import DialectDocs, references
from sandbox.server.dialects.registration import BUILT_IN
from sandbox.server.dialects.rendering import EventTranslator, wire_formats
from sandbox.server.dialects.routing import DialectRouting
from sandbox.server.docs.api import DocsApi
from sandbox.server.docs.guide_api import GuideApi
from sandbox.server.health import HealthApi
from sandbox.server.one_clock import OneClock
from sandbox.server.readiness import Readiness
from sandbox.server.request_log import RequestLog
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.aggregator.service import AggregatorService
from sandbox.users.bulk_credit.service import BulkCreditService
from sandbox.users.sales.service import SalesService
from sandbox.users.service import UserService
from sandbox.users.summary_cache import SummaryCache
from sandbox.users.vendor_feed.service import FeedService
from sandbox.users.wallets import WalletService
from sandbox.webhooks.attempts import AttemptService
from sandbox.webhooks.deliveries import DeliveryService
from sandbox.webhooks.delivery.attempt import AttemptRunner
from sandbox.webhooks.delivery.receiver_time import receiver_time
from sandbox.webhooks.endpoints.secrets import SecretService
from sandbox.webhooks.endpoints.service import EndpointService
from sandbox.webhooks.explain import DeliveryExplainer
from sandbox.webhooks.listeners.relay import Relay
from sandbox.webhooks.listeners.service import ListenerService
from sandbox.webhooks.outbound.sender import WebhookSender
from sandbox.webhooks.preview import PreviewService
from sandbox.webhooks.receiver_tests.service import ReceiverTestService
from sandbox.webhooks.recovery import RecoveryService
from sandbox.worlds.audit.service import AuditService
from sandbox.worlds.bundles.service import BundleService
from sandbox.worlds.clock.advancer import ClockAdvancer
from sandbox.worlds.clock.due import DueService
from sandbox.worlds.clock.service import ClockService
from sandbox.worlds.merchants.key_ring import KeyRing
from sandbox.worlds.merchants.keys import KeyService
from sandbox.worlds.merchants.service import MerchantService
from sandbox.worlds.merchants.settings import SettingsService
from sandbox.worlds.overview.service import OverviewService
from sandbox.worlds.snapshots.service import WorldService
from sandbox.worlds.stream.api import StreamApi
from sandbox.worlds.stream.streams import Streams

if TYPE_CHECKING:
    from redis.asyncio import Redis

BODY_LIMIT = 2 * 1024 * 1024
"""In bytes. A batch of 1000 payouts with all their metadata is about a megabyte."""


@dataclass(frozen=True, slots=True)
class Application:
    """The API as an ASGI application, with its operations."""

    asgi: ASGIApp
    operations: Sequence[Operation]
    on_shutdown: Callable[[], None]
    """Call it at the start of a shutdown, before waiting for pending requests."""
    work: UnitOfWorkRunner
    journal: Journal
    redis: "Redis"


def create_app(settings: Settings) -> Application:
    """Return the API. It connects to no store before its lifespan starts."""
    redis = connect(settings.redis_url)
    sender = RedisSender(settings.redis_url)
    waker = Waker(sender)
    notifier = Notifier()
    work = UnitOfWorkRunner(
        load_catalogue(), notifier, settings.batch_limit, settings.queue_limit, settings.merchants_per_transaction
    )
    limiter = RateLimiter(settings.redis_url)
    keys = KeyRing()
    readiness = Readiness(redis)
    box = SecretBox(settings.secret_key)
    directory = load_directory()
    endpoints = EndpointService(work, box, settings.webhook_allow)
    summaries = SummaryCache(settings.redis_url)
    advancer = ClockAdvancer(work)
    feed = LiveFeed(sender)
    journal = Journal(redis, feed.notes)
    subscriber = LiveSubscriber(settings.redis_url)
    streams = Streams(redis, subscriber)
    notifier.before_commit.append(summaries.committing)
    notifier.after_commit += [waker.committed, summaries.committed, keys.committed, journal.committed, feed.committed]
    payout_reads = PayoutReads()
    clock = ClockService(work, advancer, summaries.add_clock_advance)
    receivers = receiver_time(settings.clock_folder)
    dialects = load_dialects(BUILT_IN, settings.dialects)
    receiver_tests = ReceiverTestService(work, settings.webhook_allow, feed.notes, wire_formats(dialects))
    translator = EventTranslator(dialects)
    services = Services(
        work=work,
        payouts=PayoutService(work, directory, payout_reads, PayoutWaits(subscriber, payout_reads)),
        reads=payout_reads,
        balance=BalanceService(work),
        directory=directory,
        endpoints=endpoints,
        secrets=SecretService(work, box),
        deliveries=DeliveryService(work, translator.rendered),
        keys=KeyService(work, box),
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await open_pool(settings.database_url, settings.pool_size)
            # Closed from last to first: accepted commands are finished before the connections to the stores close.
            stack.push_async_callback(close_pool)
            stack.push_async_callback(redis.aclose)
            webhook_sender = WebhookSender(settings.webhook_allow)
            for part in (journal, limiter, readiness, subscriber, sender, webhook_sender, receiver_tests):
                stack.push_async_callback(part.close)
            stack.push_async_callback(clock.close, 5)
            stack.push_async_callback(summaries.close)
            stack.push_async_callback(lambda: asyncio.wait_for(work.close(), 20))
            advancer.set_attempts(
                AttemptRunner(
                    webhook_sender,
                    box,
                    on_recorded=feed.notes,
                    journal=journal,
                    receiver_time=receivers,
                    translator=translator,
                )
            )
            for part in (sender, subscriber, journal, receiver_tests):
                part.start()
            yield

    operations = operations_of(
        UserService(work, directory),
        WalletService(summaries),
        BulkCreditService(work),
        SalesService(work),
        services.payouts,
        SimulationService(work, payout_reads),
        services.balance,
        FlowService(),
        DirectoryApi(directory, work),
        endpoints,
        PreviewService(work),
        RecoveryService(work),
        services.secrets,
        services.deliveries,
        AttemptService(),
        DeliveryExplainer(journal),
        ListenerService(work, box, Relay(box, subscriber, feed.notes, journal, receivers, translator)),
        MerchantService(work, box, endpoints, settings.ipn_url),
        services.keys,
        SettingsService(work),
        clock,
        DueService(work.catalogue),
        StreamApi(streams, keys),
        AuditService(),
        OverviewService(),
        FeedService(),
        AggregatorService(work, box, settings.webhook_allow),
        JournalApi(journal),
        FaultService(work),
        receiver_tests,
        ScenarioService(work, directory),
        WorldService(work),
        BundleService(work, box, directory, journal),
        HealthApi(readiness),
    )
    documented = list(references(dialects).values())
    operations += operations_of(DocsApi(operations, settings.public_url, work.catalogue, documented), GuideApi())
    of_dialects = [operation for dialect in dialects.values() for operation in dialect.operations(services)]
    console = Console(operations, settings, subscriber, dialects, of_dialects)
    operations += console.routes()
    middleware = api_middleware(settings, keys, limiter, inject_before)
    of_dialects += operations_of(DialectDocs(dialects, of_dialects, settings.public_url))
    litestar = create_litestar([*operations, *of_dialects], middleware, settings.public_url, BODY_LIMIT, lifespan)
    application: ASGIApp = RequestLog(DialectRouting(litestar, dialects), journal)
    if settings.clock_folder is not None:
        application = advancer.companions = OneClock(settings.clock_folder, application)
    console.calls.connect(litestar, application)
    return Application(application, operations, subscriber.begin_closing, work, journal, redis)
