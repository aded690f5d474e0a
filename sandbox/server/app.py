"""Compose the API: every slice's routes, one error handler, and what must live as long as the process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from litestar import Litestar
from litestar.types import ASGIApp

from sandbox.aggregator.api import aggregator_router
from sandbox.aggregator.service import AggregatorService
from sandbox.audit.api import audit_router
from sandbox.balance.api import balance_routers
from sandbox.balance.service import BalanceService
from sandbox.bulk_credit.api import bulk_credit_router
from sandbox.bulk_credit.service import BulkCreditService
from sandbox.clock.advancer import ClockAdvancer
from sandbox.clock.api import clock_router
from sandbox.clock.service import ClockService
from sandbox.db.engine import close_pool, open_pool
from sandbox.directory.api import directory_router
from sandbox.directory.catalogue import load_directory
from sandbox.docs.api import docs_router
from sandbox.faults.api import faults_router
from sandbox.faults.service import FaultService
from sandbox.feed.api import feed_router
from sandbox.feed.service import FeedService
from sandbox.http.answers import ProblemHandler
from sandbox.http.guard import KeyRing, RequestGuard
from sandbox.http.rate_limit import RateLimiter
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.settings import Settings
from sandbox.infrastructure.wake import Waker
from sandbox.journal.api import journal_router
from sandbox.journal.journal import Journal
from sandbox.live.api import stream_router
from sandbox.live.feed import LiveFeed
from sandbox.live.listener import LiveListener
from sandbox.live.streams import Streams
from sandbox.merchants.api import keys_router, merchants_router
from sandbox.merchants.service import MerchantService
from sandbox.merchants.settings import SettingsService
from sandbox.merchants.settings_api import settings_router
from sandbox.payouts.api import payouts_router
from sandbox.payouts.service import PayoutService
from sandbox.payouts.simulate_api import simulate_router
from sandbox.payouts.waiting import PayoutWaits
from sandbox.sales.api import sales_routers
from sandbox.sales.service import SalesService
from sandbox.scenarios.api import scenarios_router
from sandbox.scenarios.builtin import load_catalogue
from sandbox.scenarios.service import ScenarioService
from sandbox.server.health import health_router
from sandbox.server.readiness import Readiness
from sandbox.server.request_log import RequestLog
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.runner import UnitsOfWork
from sandbox.users.api import users_routers
from sandbox.users.service import UserService
from sandbox.users.summary_cache import SummaryCache
from sandbox.webhooks.api import webhooks_router
from sandbox.webhooks.attempt import Attempts
from sandbox.webhooks.deliveries import DeliveryService
from sandbox.webhooks.endpoints import EndpointService
from sandbox.webhooks.sender import WebhookSender
from sandbox.worlds.api import worlds_router
from sandbox.worlds.service import WorldService

BODY_LIMIT = 2 * 1024 * 1024
"""A batch of 1000 payouts with all their metadata is about a megabyte."""


@dataclass(frozen=True, slots=True)
class Application:
    """The API as an ASGI application, and the Litestar application inside it."""

    asgi: ASGIApp
    litestar: Litestar
    leave: Callable[[], None]
    """To be called when the process is about to end, before its requests are waited for."""


def create_app(settings: Settings) -> Application:
    """Build the API. Nothing is connected before its first start-up event."""
    waker = Waker(settings.redis_url)

    notifier = Notifier()
    work = UnitsOfWork(load_catalogue(), notifier, settings.batch_limit, settings.queue_limit)
    limiter = RateLimiter(settings.redis_url)
    keys = KeyRing()
    readiness = Readiness(settings.redis_url)
    gate = RequestGuard(settings, keys, limiter)
    box = SecretBox(settings.secret_key)
    directory = load_directory()
    endpoints = EndpointService(work, box, settings.webhook_allow)
    merchants = MerchantService(work, box, endpoints)
    summaries = SummaryCache(settings.redis_url)
    advancer = ClockAdvancer(work)
    feed = LiveFeed(settings.redis_url)
    journal = Journal(settings.redis_url, feed.notes)
    listener = LiveListener(settings.redis_url)
    streams = Streams(settings.redis_url, listener)
    notifier.before_commit.append(summaries.committing)
    notifier.after_commit += [waker.committed, summaries.committed, keys.committed, journal.committed, feed.committed]
    payouts = PayoutService(work, directory, PayoutWaits(listener))
    clock = ClockService(work, advancer, summaries.pass_time)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await open_pool(settings.database_url, settings.pool_size)
        waker.start()
        sender = WebhookSender(settings.webhook_allow)
        feed.start()
        listener.start()
        advancer.start(Attempts(sender, box, on_recorded=feed.notes, journal=journal))
        journal.start()
        try:
            yield
        finally:
            # What was accepted is finished before the stores are let go.
            await asyncio.wait_for(work.close(), 20)
            await summaries.close()
            await clock.close(5)
            await sender.close()
            await feed.close()
            await listener.close()
            await streams.close()
            await waker.close()
            await readiness.close()
            await limiter.close()
            await journal.close()
            await close_pool()

    litestar = Litestar(
        route_handlers=[
            *users_routers(gate, UserService(work, directory, summaries)),
            bulk_credit_router(gate, BulkCreditService(work)),
            *sales_routers(gate, SalesService(work)),
            payouts_router(gate, payouts),
            simulate_router(gate, payouts),
            *balance_routers(gate, BalanceService(work)),
            directory_router(gate, directory, work),
            webhooks_router(gate, endpoints, DeliveryService(work)),
            merchants_router(gate, merchants),
            keys_router(gate, merchants),
            settings_router(gate, SettingsService(work)),
            clock_router(gate, clock),
            stream_router(gate, streams),
            audit_router(gate),
            feed_router(gate, FeedService(), limiter),
            aggregator_router(gate, AggregatorService(work, box, settings.webhook_allow)),
            journal_router(gate, journal),
            faults_router(gate, FaultService(work)),
            scenarios_router(gate, ScenarioService(work, directory)),
            worlds_router(gate, WorldService(work)),
            health_router(readiness),
            docs_router(settings.public_url, work.catalogue),
        ],
        lifespan=[lifespan],
        exception_handlers={Exception: ProblemHandler(settings.public_url)},
        openapi_config=None,
        request_max_body_size=BODY_LIMIT,
        logging_config=None,
    )
    return Application(RequestLog(litestar, journal), litestar, listener.leave)
