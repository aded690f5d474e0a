"""Compose the API: every slice's routes, one error handler, and what must live as long as the process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from litestar import Litestar
from litestar.types import ASGIApp

from sandbox.balance.api import balance_routers
from sandbox.balance.service import BalanceService
from sandbox.control.faults_api import faults_router
from sandbox.control.faults_service import FaultService
from sandbox.control.journal import Journal
from sandbox.control.journal_api import journal_router
from sandbox.db.engine import close_pool, open_pool
from sandbox.directory.api import directory_router
from sandbox.directory.catalogue import load_directory
from sandbox.docs.api import docs_router
from sandbox.health import health_router
from sandbox.http.answers import ProblemHandler
from sandbox.http.entry import Gate, KeyRing
from sandbox.http.middleware import RequestLog
from sandbox.ledger.audit_api import audit_router
from sandbox.merchants.api import keys_router, merchants_router
from sandbox.merchants.service import MerchantService
from sandbox.payouts.api import payouts_router
from sandbox.payouts.service import PayoutService
from sandbox.scenarios.api import scenarios_router
from sandbox.scenarios.builtin import load_catalogue
from sandbox.scenarios.service import ScenarioService
from sandbox.secrets_at_rest import SecretBox
from sandbox.settings import Settings
from sandbox.wake import Waker
from sandbox.webhooks.api import webhooks_router
from sandbox.webhooks.deliveries import DeliveryService
from sandbox.webhooks.endpoints import EndpointService
from sandbox.work.loop import MerchantQueues
from sandbox.work.unit import Unit

BODY_LIMIT = 2 * 1024 * 1024
"""A batch of 1000 payouts with all their metadata is about a megabyte."""


@dataclass(frozen=True, slots=True)
class Application:
    """The API as an ASGI application, and the Litestar application inside it."""

    asgi: ASGIApp
    litestar: Litestar


def create_app(settings: Settings) -> Application:
    """Build the API. Nothing is connected before its first start-up event."""
    waker = Waker(settings.redis_url)

    def committed(unit: Unit) -> None:
        due = unit.next_due
        if (due is not None and due <= unit.now) or unit.deliveries:
            waker.wake(unit.merchant_id)

    queues = MerchantQueues(settings.batch_limit, settings.queue_limit, committed)
    journal = Journal(settings.redis_url)
    keys = KeyRing()
    gate = Gate(settings, keys)
    box = SecretBox(settings.secret_key)
    directory = load_directory()
    catalogue = load_catalogue()
    endpoints = EndpointService(box, settings.webhook_allow)
    merchants = MerchantService(box, endpoints)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await open_pool(settings.database_url, settings.pool_size)
        waker.start()
        journal.start()
        try:
            yield
        finally:
            # What was accepted is finished before the stores are let go.
            await asyncio.wait_for(queues.close(), 20)
            await waker.close()
            await journal.close()
            await close_pool()

    litestar = Litestar(
        route_handlers=[
            payouts_router(gate, PayoutService(queues, catalogue, directory)),
            *balance_routers(gate, BalanceService(queues)),
            directory_router(gate, directory, queues),
            webhooks_router(gate, endpoints, DeliveryService(waker.wake)),
            merchants_router(gate, merchants),
            keys_router(gate, merchants),
            audit_router(gate),
            journal_router(gate, journal),
            faults_router(gate, FaultService(keys.forget)),
            scenarios_router(gate, ScenarioService(catalogue, directory)),
            health_router(waker),
            docs_router(settings.public_url, catalogue),
        ],
        lifespan=[lifespan],
        exception_handlers={Exception: ProblemHandler(settings.public_url)},
        openapi_config=None,
        request_max_body_size=BODY_LIMIT,
        logging_config=None,
    )
    return Application(RequestLog(litestar, journal), litestar)
