"""Run units of work without a server, for tests of services and background loops."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandbox.domain.unit import IdempotencyKey, RequestContext
from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.unit_of_work.notifier import Hook, Notifier
from sandbox.unit_of_work.runner import UnitOfWorkRunner


@asynccontextmanager
async def pooled(database_url: str, connections: int) -> AsyncIterator[None]:
    """Open this process's pool of connections for the block."""
    await open_pool(database_url, connections)
    try:
        yield
    finally:
        await close_pool()


def units_of_work(
    *after_commit: Hook, batch_limit: int = 256, queue_limit: int = 10_000, merchants_at_once: int = 64
) -> UnitOfWorkRunner:
    """Return a runner of units of work in this process. It calls the hooks after each commit."""
    notifier = Notifier()
    notifier.after_commit += after_commit
    return UnitOfWorkRunner(load_catalogue(), notifier, batch_limit, queue_limit, merchants_at_once)


def request_of(merchant_id: str, key: IdempotencyKey | None = None, request_id: str = "test") -> RequestContext:
    """Return the context of a merchant's request."""
    return RequestContext(merchant_id, key, request_id, "/test", "http://127.0.0.1")
