"""Cache users' summaries in Redis for two minutes, and drop them when their user changes.

- A summary is dropped right before the COMMIT. So a client that has seen a change never gets an older summary.
- A reader may have read the database before that COMMIT and fill the cache after the drop. To keep the old value out, each
  drop stores the user's new version, and a fill with an older version is refused. After a ROLLBACK the stored version is too
  high: that user's summaries are not cached until it expires, which is harmless.
- Replacing a merchant's world (reset, restore) increments its epoch. Summaries and versions of earlier epochs are ignored.
- While Redis is down, summaries are computed each time. Pending drops are remembered until it is back, and this process
  serves none of the summaries that they concern. Another process may serve them if Redis accepts reads but refuses writes.
"""

import asyncio
import contextlib
import time
from collections import Counter
from datetime import timedelta
from itertools import islice
from typing import Final

import msgspec
import structlog
from redis.asyncio import Redis

from sandbox.domain.unit import Effect, UnitOfWork
from sandbox.infrastructure.clock_advance import clock_advance_key
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks

TTL_SECONDS: Final = 120
_VERSION_SECONDS: Final = 300
"""Longer than any reader needs between reading the database and filling the cache."""
_BATCH: Final = 500
_MAX_PENDING_DROPS: Final = 100_000
_REPLACE_WORLD: Final = {Effect.WORLD_RESET, Effect.WORLD_RESTORED}
_log = structlog.get_logger()

_FILL: Final = """
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[4] then return 0 end
local version = redis.call('GET', KEYS[3])
if version and tonumber(version) > tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
"""

# All users are in one JSON argument. Sending and parsing four arguments per user would cost four times as much as the script.
_DROP: Final = """
local epoch = redis.call('GET', KEYS[1]) or '0'
for user, version in pairs(cjson.decode(ARGV[1])) do
    local key = ARGV[4] .. epoch .. ':' .. user
    local known = redis.call('GET', key)
    if known and tonumber(known) > version then version = known end
    redis.call('SET', key, version, 'EX', ARGV[2])
    redis.call('DEL', ARGV[3] .. user)
end
"""


class CacheMiss(msgspec.Struct):
    """A cache miss: pass it to `fill`."""

    epoch: str
    advanced: int
    """Milliseconds by which the merchant's clock had been advanced manually at the time of the lookup."""


_Lookup = asyncio.Future[bytes | CacheMiss | None]


class _Cached(msgspec.Struct):
    """A cache entry. It names the merchant because two seeded merchants may have users with the same id."""

    merchant_id: str
    miss: CacheMiss
    expires: int
    """Unix time in milliseconds, if the merchant's clock is not advanced manually until then."""
    summary: msgspec.Raw


class SummaryCache:
    """The cache client of one process. No method raises when Redis is down."""

    def __init__(self, redis_url: str) -> None:
        self._redis: Redis = Redis.from_url(redis_url, socket_timeout=0.5, socket_connect_timeout=0.5, max_connections=64)
        self._fill = self._redis.register_script(_FILL)
        self._drop = self._redis.register_script(_DROP)
        self._decoder = msgspec.json.Decoder(_Cached)
        self._to_drop: dict[str, dict[str, int]] = {}
        """Pending drops: merchant → user → the version to store."""
        self._to_forget: Counter[str] = Counter()
        """Pending epoch increments: merchant → how often `forget` was called."""
        self._lookups: dict[tuple[str, str], _Lookup] = {}
        self._lookup_task: asyncio.Task[None] | None = None
        self._unavailable_until = 0.0
        self._retry: asyncio.Task[None] | None = None
        self._retry_until = 0.0

    async def get(self, merchant_id: str, user_id: str) -> bytes | CacheMiss | None:
        """Return the cached summary as JSON, or a CacheMiss to pass to `fill`; None if the cache is not available."""
        if self._unavailable_until > time.monotonic():
            return None
        if merchant_id in self._to_forget or user_id in self._to_drop.get(merchant_id, ()):
            return None  # a drop is pending, so the cached summary is outdated
        # Lookups that arrive during a round trip share the next one: a round trip costs far more than a key.
        lookup = self._lookups.get((merchant_id, user_id))
        if lookup is None:
            lookup = self._lookups[merchant_id, user_id] = asyncio.get_running_loop().create_future()
            if self._lookup_task is None:
                self._lookup_task = asyncio.create_task(self._look_up_all())
        return await asyncio.shield(lookup)

    async def _look_up_all(self) -> None:
        try:
            while self._lookups:
                lookups, self._lookups = list(self._lookups.items()), {}
                for start in range(0, len(lookups), _BATCH):
                    await self._look_up(lookups[start : start + _BATCH])
        finally:
            self._lookup_task = None

    async def _look_up(self, lookups: "list[tuple[tuple[str, str], _Lookup]]") -> None:
        try:
            keys = [key for (m, user), _ in lookups for key in (_key(user), _epoch_key(m), clock_advance_key(m))]
            values: list[bytes | None] = await self._redis.mget(keys)
        except REDIS_ERRORS as error:
            self._mark_unavailable(error)
            values = []
        for index, ((merchant_id, _), lookup) in enumerate(lookups):
            if not lookup.done():
                lookup.set_result(self._summary_or_miss(merchant_id, *values[3 * index : 3 * index + 3]) if values else None)

    def _summary_or_miss(
        self, merchant_id: str, value: bytes | None, epoch: bytes | None, advanced: bytes | None
    ) -> bytes | CacheMiss:
        """Return the summary in a cache entry if it is valid now, else a CacheMiss."""
        now = CacheMiss((epoch or b"0").decode(), int(advanced or 0))
        if value is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                cached = self._decoder.decode(value)
                advanced_since = now.advanced - cached.miss.advanced
                if (
                    cached.merchant_id == merchant_id
                    and cached.miss.epoch == now.epoch
                    and advanced_since >= 0
                    and time.time() * 1000 + advanced_since < cached.expires
                ):
                    return bytes(cached.summary)
        return now

    async def fill(self, merchant_id: str, user_id: str, miss: CacheMiss, version: int, summary: bytes) -> None:
        """Cache a summary that was read from the database at the user's `version`, unless a newer version has dropped it."""
        expires = int((time.time() + TTL_SECONDS) * 1000)
        value = msgspec.json.encode(_Cached(merchant_id, miss, expires, msgspec.Raw(summary)))
        keys = [_key(user_id), _epoch_key(merchant_id), f"{_version_keys(merchant_id)}{miss.epoch}:{user_id}"]
        try:
            await self._fill(keys=keys, args=[value, version, TTL_SECONDS, miss.epoch])
        except REDIS_ERRORS as error:
            self._mark_unavailable(error)

    async def forget(self, merchant_id: str) -> None:
        """Drop all summaries of a merchant whose world was replaced."""
        self._to_forget[merchant_id] += 1
        if self._unavailable_until > time.monotonic() or not await self._send_pending():
            self._retry_later()

    async def add_clock_advance(self, merchant_id: str, advanced: timedelta) -> None:
        """Age a merchant's summaries and rate limits by the time that its clock was advanced manually."""
        milliseconds = advanced // timedelta(milliseconds=1)
        if milliseconds <= 0:
            return
        try:
            await self._redis.incrby(clock_advance_key(merchant_id), milliseconds)
        except REDIS_ERRORS as error:
            self._mark_unavailable(error)
            await self.forget(merchant_id)

    async def committing(self, unit: UnitOfWork) -> None:
        """Drop the summaries that a unit of work invalidates, before its COMMIT."""
        if unit.effects & _REPLACE_WORLD:
            await self.forget(unit.merchant_id)
        versions = unit.credited | {user.id: user.version for user in unit.changed_users.values()}
        if not versions:
            return
        self._to_drop.setdefault(unit.merchant_id, {}).update(versions)
        if self._unavailable_until > time.monotonic() or not await self._send_pending():
            self._retry_later()

    async def committed(self, unit: UnitOfWork) -> None:
        """Drop summaries that were read from the old world after `committing` ran, but before the COMMIT that replaced it."""
        if unit.effects & _REPLACE_WORLD:
            await self.forget(unit.merchant_id)

    async def close(self) -> None:
        """Stop retrying and close the connections."""
        if self._retry is not None:
            await end_tasks(self._retry)
        with contextlib.suppress(*REDIS_ERRORS):
            await self._redis.aclose()

    async def _send_pending(self) -> bool:
        """Send all pending epoch increments and drops; return whether Redis accepted them."""
        while self._to_forget:
            merchant_id, calls = next(iter(self._to_forget.items()))
            try:
                await self._redis.incr(_epoch_key(merchant_id))
            except REDIS_ERRORS as error:
                self._mark_unavailable(error)
                return False
            if self._to_forget[merchant_id] == calls:
                del self._to_forget[merchant_id]
        while self._to_drop:
            merchant_id, versions = next(iter(self._to_drop.items()))
            part = dict(islice(versions.items(), _BATCH))
            try:
                await self._drop(
                    keys=[_epoch_key(merchant_id)],
                    args=[msgspec.json.encode(part), _VERSION_SECONDS, _key(""), _version_keys(merchant_id)],
                )
            except REDIS_ERRORS as error:
                self._mark_unavailable(error)
                return False
            for user_id, version in part.items():
                if versions.get(user_id) == version:
                    del versions[user_id]
            if not versions and self._to_drop.get(merchant_id) is versions:
                del self._to_drop[merchant_id]
        return True

    def _retry_later(self) -> None:
        now = time.monotonic()
        if len(self._to_forget) + sum(map(len, self._to_drop.values())) > _MAX_PENDING_DROPS:
            # There are too many drops to remember, so serve nothing until every cached summary has expired.
            self._to_drop.clear()
            self._to_forget.clear()
            self._unavailable_until = now + TTL_SECONDS
        self._retry_until = now + TTL_SECONDS
        if self._retry is None or self._retry.done():
            self._retry = asyncio.create_task(self._retry_until_sent())

    async def _retry_until_sent(self) -> None:
        # By _retry_until, every summary with a pending drop has expired, so there is nothing left to drop.
        while (self._to_drop or self._to_forget) and time.monotonic() < self._retry_until:
            await asyncio.sleep(0.25)
            await self._send_pending()
        self._to_drop.clear()
        self._to_forget.clear()

    def _mark_unavailable(self, error: Exception) -> None:
        if self._unavailable_until < time.monotonic() - 10:
            _log.warning("redis_unavailable", error=repr(error)[:300], note="summaries are not cached")
        self._unavailable_until = max(self._unavailable_until, time.monotonic() + 0.5)


def _key(user_id: str) -> str:
    return f"cache-summary-user-{user_id}"


def _version_keys(merchant_id: str) -> str:
    return f"psp:summary-version:{merchant_id}:"


def _epoch_key(merchant_id: str) -> str:
    return f"psp:summary-epoch:{merchant_id}"
