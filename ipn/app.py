"""The IPN application: what banks call. Its own small process, on a port of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from litestar import Litestar, post
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from ipn.callback import CallbackBody, CallbackService, callback_faults
from sandbox.db.engine import close_pool, open_pool
from sandbox.domain.body import decode
from sandbox.http.answers import ProblemHandler, answered
from sandbox.http.guard import HttpRequest, KeyRing, RequestGuard
from sandbox.http.rate_limit import RateLimiter
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.settings import Settings
from sandbox.infrastructure.wake import Waker
from sandbox.live.feed import LiveFeed
from sandbox.scenarios.builtin import load_catalogue
from sandbox.server.health import health_router
from sandbox.server.readiness import Readiness
from sandbox.server.request_log import RequestLog
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.runner import UnitsOfWork
from sandbox.users.summary_cache import SummaryCache

BODY_LIMIT = 64 * 1024
_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


def create_app(settings: Settings) -> ASGIApp:
    """Build the IPN application."""
    waker = Waker(settings.redis_url)
    summaries = SummaryCache(settings.redis_url)

    feed = LiveFeed(settings.redis_url)
    notifier = Notifier()
    notifier.before_commit.append(summaries.committing)
    notifier.after_commit += [waker.committed, feed.committed]
    work = UnitsOfWork(load_catalogue(), notifier, settings.batch_limit, settings.queue_limit)
    readiness = Readiness(settings.redis_url, with_worker=False)  # a callback needs none
    gate = RequestGuard(settings, KeyRing(), RateLimiter(settings.redis_url))
    service = CallbackService(work, SecretBox(settings.secret_key))
    body_decoder = msgspec.json.Decoder(CallbackBody)

    @post("/ipn/callback", status_code=200)
    async def callback(request: HttpRequest) -> ASGIResponse:
        raw = await gate.body(request)
        body = decode(body_decoder, raw, callback_faults)
        headers = {name: request.headers.get(name, "") for name in _HEADERS}
        return answered(await service.receive(body, raw, headers, gate.context(request)))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await open_pool(settings.database_url, settings.pool_size)
        waker.start()
        feed.start()
        try:
            yield
        finally:
            await asyncio.wait_for(work.close(), 20)
            await summaries.close()
            await feed.close()
            await waker.close()
            await readiness.close()
            await close_pool()

    return RequestLog(
        Litestar(
            route_handlers=[callback, health_router(readiness)],
            lifespan=[lifespan],
            exception_handlers={Exception: ProblemHandler(settings.public_url)},
            openapi_config=None,
            request_max_body_size=BODY_LIMIT,
            logging_config=None,
        )
    )
