"""Users' summaries in Redis for two minutes, dropped by whatever changes them.

They are dropped right before the COMMIT, so that nobody who has seen the change can meet an older summary. A reader that
looked into the store before the COMMIT and comes to cache what it saw must not bring the old value back: each drop leaves
the user's new version behind, and an older value than that is not taken. (After a ROLLBACK the left version keeps the next
summaries from being cached for a while, which harms nobody.)
A merchant's epoch goes on when its world is exchanged: neither summaries nor versions of an earlier one count then.
Redis away means computing every time, and remembering what to drop when it is back; nothing that is to be dropped is served
meanwhile. What another process could not drop, since Redis took no writes, is served until it can be, if Redis answers
reads all the same.
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
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks
from sandbox.infrastructure.time_passed import passed_key

SECONDS: Final = 120
_VERSION_SECONDS: Final = 300
"""Longer than any reader takes from its look into the store to its attempt to cache."""
_AT_ONCE: Final = 500
_REMEMBERED: Final = 100_000
_REPLACE_WORLD: Final = {Effect.WORLD_RESET, Effect.WORLD_RESTORED}
_log = structlog.get_logger()

_FILL: Final = """
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[4] then return 0 end
local version = redis.call('GET', KEYS[3])
if version and tonumber(version) > tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
"""

# The users come as one argument: to send, take and look at four for each of them takes four times as long as all the rest.
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


class Missed(msgspec.Struct):
    """A look that found nothing: what `fill` needs to know of it."""

    epoch: str
    passed: int
    """Milliseconds of the merchant's time that were passed by hand until then."""


class _Cached(msgspec.Struct):
    """Whose summary it is; two seeded merchants may have users with the same id."""

    merchant_id: str
    seen: Missed
    until: int
    """Unix time in milliseconds at which it lapses, if none is passed by hand."""
    summary: msgspec.Raw


class SummaryCache:
    """The cache of one process. Nothing here raises because Redis is away."""

    def __init__(self, redis_url: str) -> None:
        self._redis: Redis = Redis.from_url(redis_url, socket_timeout=0.5, socket_connect_timeout=0.5, max_connections=64)
        self._fill = self._redis.register_script(_FILL)
        self._drop = self._redis.register_script(_DROP)
        self._decoder = msgspec.json.Decoder(_Cached)
        self._to_drop: dict[str, dict[str, int]] = {}
        """Merchant → user → the version to leave behind."""
        self._to_forget: Counter[str] = Counter()
        """Merchant → how often it was asked for."""
        self._looks: dict[tuple[str, str], asyncio.Future[bytes | Missed | None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._away_until = 0.0
        self._again: asyncio.Task[None] | None = None
        self._again_until = 0.0

    async def get(self, merchant_id: str, user_id: str) -> bytes | Missed | None:
        """The cached summary as JSON, or what to fill it with; None if Redis is away."""
        if self._away_until > time.monotonic():
            return None
        if merchant_id in self._to_forget or user_id in self._to_drop.get(merchant_id, ()):
            return None  # what is cached is older than what this process knows of
        # Looks that come while one is under way share the next one: a round trip costs far more than a key.
        look = self._looks.get((merchant_id, user_id))
        if look is None:
            look = self._looks[merchant_id, user_id] = asyncio.get_running_loop().create_future()
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(look)

    async def _look(self) -> None:
        try:
            while self._looks:
                looks, self._looks = self._looks, {}
                for start in range(0, len(looks), _AT_ONCE):
                    await self._look_at(list(looks.items())[start : start + _AT_ONCE])
        finally:
            self._looking = None

    async def _look_at(self, looks: "list[tuple[tuple[str, str], asyncio.Future[bytes | Missed | None]]]") -> None:
        try:
            keys = [key for (m, user), _ in looks for key in (_key(user), _epoch_key(m), passed_key(m))]
            values: list[bytes | None] = await self._redis.mget(keys)
        except REDIS_ERRORS as error:
            self._say_away(error)
            values = []
        for place, ((merchant_id, _), look) in enumerate(looks):
            if not look.done():
                look.set_result(self._seen(merchant_id, *values[3 * place : 3 * place + 3]) if values else None)

    def _seen(self, merchant_id: str, value: bytes | None, epoch: bytes | None, passed: bytes | None) -> bytes | Missed:
        now = Missed((epoch or b"0").decode(), int(passed or 0))
        if value is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                cached = self._decoder.decode(value)
                by_hand = now.passed - cached.seen.passed
                if (
                    cached.merchant_id == merchant_id
                    and cached.seen.epoch == now.epoch
                    and by_hand >= 0
                    and time.time() * 1000 + by_hand < cached.until
                ):
                    return bytes(cached.summary)
        return now

    async def fill(self, merchant_id: str, user_id: str, missed: Missed, version: int, summary: bytes) -> None:
        """Cache a summary that was read from the store at the user's `version`, unless a later change was heard of."""
        until = int((time.time() + SECONDS) * 1000)
        value = msgspec.json.encode(_Cached(merchant_id, missed, until, msgspec.Raw(summary)))
        keys = [_key(user_id), _epoch_key(merchant_id), f"{_version_keys(merchant_id)}{missed.epoch}:{user_id}"]
        try:
            await self._fill(keys=keys, args=[value, version, SECONDS, missed.epoch])
        except REDIS_ERRORS as error:
            self._say_away(error)

    async def forget(self, merchant_id: str) -> None:
        """Drop all of a merchant's summaries: its world was exchanged for another."""
        self._to_forget[merchant_id] += 1
        if self._away_until > time.monotonic() or not await self._catch_up():
            self._begin_again()

    async def pass_time(self, merchant_id: str, by_hand: timedelta) -> None:
        """Let what is counted in the merchant's time age by what was passed by hand."""
        milliseconds = by_hand // timedelta(milliseconds=1)
        if milliseconds <= 0:
            return
        try:
            await self._redis.incrby(passed_key(merchant_id), milliseconds)
        except REDIS_ERRORS as error:
            self._say_away(error)
            await self.forget(merchant_id)

    async def committing(self, unit: UnitOfWork) -> None:
        """Drop the summaries that a unit outdates, before its COMMIT."""
        if unit.effects & _REPLACE_WORLD:
            await self.forget(unit.merchant_id)
        versions = unit.credited | {user.id: user.version for user in unit.changed_users.values()}
        if not versions:
            return
        self._to_drop.setdefault(unit.merchant_id, {}).update(versions)
        if self._away_until > time.monotonic() or not await self._catch_up():
            self._begin_again()

    async def committed(self, unit: UnitOfWork) -> None:
        """Forget what was read from a world between its replacement being written and being committed."""
        if unit.effects & _REPLACE_WORLD:
            await self.forget(unit.merchant_id)

    async def close(self) -> None:
        """Let Redis go."""
        if self._again is not None:
            await end_tasks(self._again)
        with contextlib.suppress(*REDIS_ERRORS):
            await self._redis.aclose()

    async def _catch_up(self) -> bool:
        """Forget and drop all that is to be; whether Redis took it."""
        while self._to_forget:
            merchant_id, asked = next(iter(self._to_forget.items()))
            try:
                await self._redis.incr(_epoch_key(merchant_id))
            except REDIS_ERRORS as error:
                self._say_away(error)
                return False
            if self._to_forget[merchant_id] == asked:
                del self._to_forget[merchant_id]
        while self._to_drop:
            merchant_id, versions = next(iter(self._to_drop.items()))
            part = dict(islice(versions.items(), _AT_ONCE))
            try:
                await self._drop(
                    keys=[_epoch_key(merchant_id)],
                    args=[msgspec.json.encode(part), _VERSION_SECONDS, _key(""), _version_keys(merchant_id)],
                )
            except REDIS_ERRORS as error:
                self._say_away(error)
                return False
            for user_id, version in part.items():
                if versions.get(user_id) == version:
                    del versions[user_id]
            if not versions and self._to_drop.get(merchant_id) is versions:
                del self._to_drop[merchant_id]
        return True

    def _begin_again(self) -> None:
        now = time.monotonic()
        if len(self._to_forget) + sum(map(len, self._to_drop.values())) > _REMEMBERED:
            # Too many to remember one by one: nothing is served until what is cached has lapsed by itself.
            self._to_drop.clear()
            self._to_forget.clear()
            self._away_until = now + SECONDS
        self._again_until = now + SECONDS
        if self._again is None or self._again.done():
            self._again = asyncio.create_task(self._until_caught_up())

    async def _until_caught_up(self) -> None:
        # What could not be dropped while it may still be cached has lapsed by itself after that.
        while (self._to_drop or self._to_forget) and time.monotonic() < self._again_until:
            await asyncio.sleep(0.25)
            await self._catch_up()
        self._to_drop.clear()
        self._to_forget.clear()

    def _say_away(self, error: Exception) -> None:
        if self._away_until < time.monotonic() - 10:
            _log.warning("redis_away", error=repr(error)[:300], note="summaries are computed each time")
        self._away_until = max(self._away_until, time.monotonic() + 0.5)


def _key(user_id: str) -> str:
    return f"cache-summary-user-{user_id}"


def _version_keys(merchant_id: str) -> str:
    return f"psp:summary-version:{merchant_id}:"


def _epoch_key(merchant_id: str) -> str:
    return f"psp:summary-epoch:{merchant_id}"
