"""Compose the API: every slice's operations, their middleware, and the objects that live as long as the process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from litestar import Litestar
from litestar.types import ASGIApp

from sandbox.aggregator.service import AggregatorService
from sandbox.audit.api import AuditApi
from sandbox.balance.service import BalanceService
from sandbox.bulk_credit.api import BulkCreditApi
from sandbox.bulk_credit.service import BulkCreditService
from sandbox.clock.advancer import ClockAdvancer
from sandbox.clock.api import ClockApi
from sandbox.clock.due import DueService
from sandbox.clock.service import ClockService
from sandbox.console.app import Console
from sandbox.db.engine import close_pool, open_pool
from sandbox.directory.api import DirectoryApi
from sandbox.directory.catalogue import load_directory
from sandbox.docs.api import DocsApi
from sandbox.docs.guide_api import GuideApi
from sandbox.faults.injection import inject_before
from sandbox.faults.service import FaultService
from sandbox.feed.api import FeedApi
from sandbox.feed.service import FeedService
from sandbox.http.middleware import api_middleware
from sandbox.http.operation import Operation, operations_of
from sandbox.http.rate_limit import RateLimiter
from sandbox.http.routes import create_litestar
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.settings import Settings
from sandbox.infrastructure.wake import Waker
from sandbox.journal.api import JournalApi
from sandbox.journal.journal import Journal
from sandbox.listeners.relay import Relay
from sandbox.listeners.service import ListenerService
from sandbox.live.api import StreamApi
from sandbox.live.feed import LiveFeed
from sandbox.live.listener import LiveSubscriber
from sandbox.live.streams import Streams
from sandbox.merchants.api import KeyApi, MerchantApi
from sandbox.merchants.key_ring import KeyRing
from sandbox.merchants.service import MerchantService
from sandbox.merchants.settings import SettingsService
from sandbox.merchants.settings_api import SettingsApi
from sandbox.overview.service import OverviewService
from sandbox.payouts.api import PayoutApi
from sandbox.payouts.reads import PayoutReads
from sandbox.payouts.service import PayoutService
from sandbox.payouts.simulate_api import SimulateApi
from sandbox.payouts.waiting import PayoutWaits
from sandbox.receiver_tests.api import ReceiverTestApi
from sandbox.receiver_tests.service import ReceiverTestService
from sandbox.sales.api import SaleApi
from sandbox.sales.service import SalesService
from sandbox.scenarios.api import ScenarioApi
from sandbox.scenarios.builtin import load_catalogue
from sandbox.scenarios.service import ScenarioService
from sandbox.server.health import HealthApi
from sandbox.server.readiness import Readiness
from sandbox.server.request_log import RequestLog
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.api import UserApi
from sandbox.users.service import UserService
from sandbox.users.summary_cache import SummaryCache
from sandbox.webhooks.api import DeliveryApi, EndpointApi
from sandbox.webhooks.attempt import AttemptRunner
from sandbox.webhooks.deliveries import DeliveryService
from sandbox.webhooks.endpoints import EndpointService
from sandbox.webhooks.explain import DeliveryExplainer
from sandbox.webhooks.preview import PreviewService
from sandbox.webhooks.recovery import RecoveryService
from sandbox.webhooks.secrets import SecretService
from sandbox.webhooks.sender import WebhookSender
from sandbox.worlds.bundle_api import BundleApi
from sandbox.worlds.bundle_service import BundleService
from sandbox.worlds.service import WorldService

BODY_LIMIT = 2 * 1024 * 1024
"""In bytes. A batch of 1000 payouts with all their metadata is about a megabyte."""


@dataclass(frozen=True, slots=True)
class Application:
    """The API as an ASGI application, with its operations."""

    asgi: ASGIApp
    operations: Sequence[Operation]
    on_shutdown: Callable[[], None]
    """Call it at the start of a shutdown, before waiting for pending requests."""


def create_app(settings: Settings) -> Application:
    """Return the API. It connects to no store before its lifespan starts."""
    waker = Waker(settings.redis_url)

    notifier = Notifier()
    work = UnitOfWorkRunner(
        load_catalogue(), notifier, settings.batch_limit, settings.queue_limit, settings.merchants_per_transaction
    )
    limiter = RateLimiter(settings.redis_url)
    keys = KeyRing()
    readiness = Readiness(settings.redis_url)
    box = SecretBox(settings.secret_key)
    directory = load_directory()
    endpoints = EndpointService(work, box, settings.webhook_allow)
    merchants = MerchantService(work, box, endpoints, settings.ipn_url)
    summaries = SummaryCache(settings.redis_url)
    advancer = ClockAdvancer(work)
    feed = LiveFeed(settings.redis_url)
    journal = Journal(settings.redis_url, feed.notes)
    subscriber = LiveSubscriber(settings.redis_url)
    streams = Streams(settings.redis_url, subscriber)
    notifier.before_commit.append(summaries.committing)
    notifier.after_commit += [waker.committed, summaries.committed, keys.committed, journal.committed, feed.committed]
    payout_reads = PayoutReads()
    payouts = PayoutService(work, directory, payout_reads, PayoutWaits(subscriber, payout_reads))
    clock = ClockService(work, advancer, summaries.add_clock_advance)
    receiver_tests = ReceiverTestService(work, settings.webhook_allow, feed.notes)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await open_pool(settings.database_url, settings.pool_size)
            # Closed from last to first: accepted commands are finished before the connections to the stores close.
            stack.push_async_callback(close_pool)
            sender = WebhookSender(settings.webhook_allow)
            for part in (journal, limiter, readiness, waker, streams, subscriber, feed, sender, receiver_tests):
                stack.push_async_callback(part.close)
            stack.push_async_callback(clock.close, 5)
            stack.push_async_callback(summaries.close)
            stack.push_async_callback(lambda: asyncio.wait_for(work.close(), 20))
            advancer.set_attempts(AttemptRunner(sender, box, on_recorded=feed.notes, journal=journal))
            for part in (waker, feed, subscriber, journal, receiver_tests):
                part.start()
            yield

    operations = operations_of(
        UserApi(UserService(work, directory, summaries)),
        BulkCreditApi(BulkCreditService(work)),
        SaleApi(SalesService(work)),
        PayoutApi(payouts),
        SimulateApi(payouts),
        BalanceService(work),
        DirectoryApi(directory, work),
        EndpointApi(endpoints),
        PreviewService(work),
        RecoveryService(work),
        SecretService(work, box),
        DeliveryApi(DeliveryService(work), DeliveryExplainer(journal)),
        ListenerService(work, box, Relay(box, subscriber, feed.notes, journal)),
        MerchantApi(merchants),
        KeyApi(merchants),
        SettingsApi(SettingsService(work)),
        ClockApi(clock, DueService(work.catalogue)),
        StreamApi(streams, keys),
        AuditApi(),
        OverviewService(),
        FeedApi(FeedService()),
        AggregatorService(work, box, settings.webhook_allow),
        JournalApi(journal),
        FaultService(work),
        ReceiverTestApi(receiver_tests),
        ScenarioApi(ScenarioService(work, directory)),
        WorldService(work),
        BundleApi(BundleService(work, box, directory, journal)),
        HealthApi(readiness),
    )
    operations += operations_of(DocsApi(operations, settings.public_url, work.catalogue), GuideApi())
    console = Console(operations, settings, subscriber)
    operations += console.routes()
    middleware = api_middleware(settings, keys, limiter, inject_before)
    litestar = create_litestar(operations, middleware, settings.public_url, BODY_LIMIT, lifespan)
    application = RequestLog(litestar, journal)
    console.calls.connect(litestar, application)
    return Application(application, operations, subscriber.begin_closing)
