"""The IPN application, which receives bank callbacks. It has a port of its own, and a process of its own or the API's."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.types import ASGIApp

from ipn.callback import CallbackBody, CallbackService, callback_errors
from sandbox.domain.payout import Payout
from sandbox.domain.unit import CommandResult
from sandbox.http.journal.journal import Journal
from sandbox.http.middleware import PARSING
from sandbox.http.operation import operations_of, post
from sandbox.http.request import Caller, Request
from sandbox.http.routes import Lifespan, create_litestar
from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.infrastructure.live_feed import LiveFeed
from sandbox.infrastructure.redis_client import connect
from sandbox.infrastructure.redis_messages import RedisSender
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.settings import Settings
from sandbox.infrastructure.wake import Waker
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.server.health import HealthApi
from sandbox.server.readiness import Readiness
from sandbox.server.request_log import RequestLog
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.summary_cache import SummaryCache

BODY_LIMIT = 64 * 1024
_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class CallbackApi:
    """The operation that banks call. Requests are signed and need no API key."""

    def __init__(self, callbacks: CallbackService) -> None:
        self._callbacks = callbacks

    def _check(self, fields: Mapping[str, Any]) -> list[tuple[str, str]]:
        return callback_errors(fields)

    @post("/ipn/callback", "Report a payout's status", {200: Payout}, CallbackBody, access="public", check=_check)
    async def callback(self, request: Request, body: CallbackBody) -> CommandResult:
        return await self._receive(request, body, None)

    @post(
        "/ipn/{merchant_id}/callback",
        "Report the status of a merchant's payout",
        {200: Payout},
        CallbackBody,
        access="public",
        check=_check,
        description="Like `/ipn/callback`, for the payouts of one merchant, whose `ipn_url` is this URL. On a distributed "
        "database, it needs only the node of this merchant.",
    )
    async def merchant_callback(self, request: Request, merchant_id: str, body: CallbackBody) -> CommandResult:
        return await self._receive(request, body, merchant_id)

    async def _receive(self, request: Request, body: CallbackBody, merchant_id: str | None) -> CommandResult:
        def on_signed(signer: str) -> None:
            request.caller = Caller(signer, "", "")  # the call then appears in the merchant's journal

        headers = {name: request.header(name) or "" for name in _HEADERS}
        return await self._callbacks.receive(body, request.json, headers, request.context, merchant_id, on_signed)


def create_app(settings: Settings) -> ASGIApp:
    """Return the IPN application of a process of its own. It connects to no store before its lifespan starts."""
    redis = connect(settings.redis_url)
    sender = RedisSender(settings.redis_url)
    waker = Waker(sender)
    summaries = SummaryCache(settings.redis_url)
    feed = LiveFeed(sender)
    journal = Journal(redis, feed.notes)
    notifier = Notifier()
    notifier.before_commit.append(summaries.committing)
    notifier.after_commit += [waker.committed, feed.committed]
    work = UnitOfWorkRunner(
        load_catalogue(), notifier, settings.batch_limit, settings.queue_limit, settings.merchants_per_transaction
    )
    readiness = Readiness(redis, with_worker=False)  # callbacks need no worker

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await open_pool(settings.database_url, settings.pool_size)
            # Closed from last to first: accepted commands are finished before the connections to the stores close.
            stack.push_async_callback(close_pool)
            stack.push_async_callback(redis.aclose)
            for part in (readiness, sender, journal, summaries):
                stack.push_async_callback(part.close)
            stack.push_async_callback(lambda: asyncio.wait_for(work.close(), 20))
            for part in (sender, journal):
                part.start()
            yield

    return callback_application(settings, work, journal, readiness, lifespan)


def callback_application(
    settings: Settings, work: UnitOfWorkRunner, journal: Journal, readiness: Readiness, lifespan: Lifespan | None = None
) -> ASGIApp:
    """Return the IPN application. Its `lifespan` starts and closes the parts; None if the process's other application does."""
    service = CallbackService(work, SecretBox(settings.secret_key))
    operations = operations_of(CallbackApi(service), HealthApi(readiness))
    return RequestLog(create_litestar(operations, PARSING, settings.public_url, BODY_LIMIT, lifespan), journal)
