"""The cache never returns a summary older than this process's last change, even if Redis refuses writes."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ReadOnlyError

from sandbox.domain.unit import UnitOfWork
from sandbox.users.summary_cache import TTL_SECONDS, CacheMiss, SummaryCache
from tests.harness.world import Stack


@pytest.fixture
async def cache(stack: Stack) -> AsyncIterator[SummaryCache]:
    cache = SummaryCache(stack.redis_url)
    yield cache
    await cache.close()


def unit_that_changed(merchant_id: str, user_id: str, version: int) -> UnitOfWork:
    """Return a fake unit of work that changed a user, with only the attributes that the cache reads."""
    return cast(
        "UnitOfWork", SimpleNamespace(merchant_id=merchant_id, credited={user_id: version}, changed_users={}, effects=set())
    )


async def put(cache: SummaryCache, merchant: str, user: str, version: int, summary: bytes) -> None:
    missed = await cache.get(merchant, user)
    assert isinstance(missed, CacheMiss)
    await cache.fill(merchant, user, missed, version, summary)


async def get_when_available(cache: SummaryCache, merchant: str, user: str) -> bytes | CacheMiss:
    """Wait until the cache uses Redis again, and return its result."""
    async with asyncio.timeout(30):
        while (found := await cache.get(merchant, user)) is None:  # noqa: ASYNC110 -- nothing signals that Redis is available again
            await asyncio.sleep(0.02)
    return found


async def refuse(*_: Any, **__: Any) -> None:
    raise ReadOnlyError


async def test_after_a_restore_nothing_is_served_until_redis_has_dropped_the_old_summaries(
    cache: SummaryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant, user = str(uuid.uuid4()), str(uuid.uuid4())
    await put(cache, merchant, user, 1, b"1")
    assert await cache.get(merchant, user) == b"1"
    with monkeypatch.context() as patched:
        patched.setattr(cache._redis, "incr", refuse)
        await cache.forget(merchant)
        assert await cache.get(merchant, user) is None
    assert isinstance(await get_when_available(cache, merchant, user), CacheMiss)


async def test_an_outdated_summary_is_not_served_while_redis_refuses_writes(
    cache: SummaryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant, user = str(uuid.uuid4()), str(uuid.uuid4())
    await put(cache, merchant, user, 1, b"1")
    with monkeypatch.context() as patched:
        patched.setattr(cache, "_drop", refuse)
        await cache.committing(unit_that_changed(merchant, user, 2))
        cache._unavailable_until = 0.0
        assert await cache.get(merchant, user) is None
    assert isinstance(await get_when_available(cache, merchant, user), CacheMiss)


async def test_a_late_reader_does_not_cache_an_older_value(cache: SummaryCache) -> None:
    merchant, user = str(uuid.uuid4()), str(uuid.uuid4())
    missed = await cache.get(merchant, user)
    assert isinstance(missed, CacheMiss)
    await cache.committing(unit_that_changed(merchant, user, 5))
    await cache.committing(unit_that_changed(merchant, user, 3))
    await cache.fill(merchant, user, missed, 4, b"4")
    assert isinstance(await cache.get(merchant, user), CacheMiss)
    await cache.fill(merchant, user, missed, 5, b"5")
    assert await cache.get(merchant, user) == b"5"


async def test_versions_start_again_after_a_restore(cache: SummaryCache) -> None:
    merchant, user = str(uuid.uuid4()), str(uuid.uuid4())
    await cache.committing(unit_that_changed(merchant, user, 5))
    before = await cache.get(merchant, user)
    assert isinstance(before, CacheMiss)
    await cache.forget(merchant)
    await cache.fill(merchant, user, before, 9, b"before the restore")
    await put(cache, merchant, user, 2, b"2")
    assert await cache.get(merchant, user) == b"2"


async def test_clock_advances_expire_a_summary_and_add_up(cache: SummaryCache) -> None:
    merchant, user = str(uuid.uuid4()), str(uuid.uuid4())
    await put(cache, merchant, user, 1, b"1")
    await cache.add_clock_advance(merchant, timedelta(seconds=TTL_SECONDS / 2))
    assert await cache.get(merchant, user) == b"1"
    await cache.add_clock_advance(merchant, timedelta(seconds=TTL_SECONDS / 2))
    assert isinstance(await cache.get(merchant, user), CacheMiss)
