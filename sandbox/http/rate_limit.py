"""At most so many requests in any window of a merchant's time, counted in Redis for all processes together.

The window goes by the host's time, which a frozen clock does not stop, and by what the merchant passes by hand.
"""

import time
from typing import TYPE_CHECKING, Final

import structlog

from sandbox.domain.errors import Problem, unavailable
from sandbox.infrastructure.clock_advance import clock_advance_key
from sandbox.infrastructure.redis_errors import REDIS_ERRORS

if TYPE_CHECKING:
    from redis.asyncio import Redis

MINUTE: Final = 60.0

# The times of the last requests that passed, oldest first, no more of them than the limit: a request passes if the one
# that many places before it is a whole window old. Atomic, as all scripts are, and of two or three steps whatever the
# limit. A process whose clock is behind counts from the newest time known, so that no window holds one too many; a
# clock that was ahead is forgotten with the list, a window after the last request, by Redis's own clock.
_SCRIPT: Final = """
local window, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local now = string.format('%.0f', tonumber(ARGV[1]) + tonumber(redis.call('GET', KEYS[2]) or '0'))
local newest = redis.call('LINDEX', KEYS[1], -1)
if newest and tonumber(newest) > tonumber(now) then now = newest end
local nth = redis.call('LINDEX', KEYS[1], -limit)
if nth and tonumber(nth) + window > tonumber(now) then return tonumber(nth) + window - tonumber(now) end
redis.call('RPUSH', KEYS[1], now)
redis.call('LTRIM', KEYS[1], -limit, -1)
redis.call('PEXPIRE', KEYS[1], window)
return 0
"""
_log = structlog.get_logger()


class RateLimiter:
    """Counts requests by (scope, merchant, id)."""

    def __init__(self, redis_url: str) -> None:
        """Take where Redis is. Nothing is connected before the first request that has a limit."""
        self._url = redis_url
        self._redis: Redis | None = None
        self._away = False

    async def wait(self, scope: str, identity: str, merchant_id: str, limit: int, window: float, now: float) -> float:
        """Count a request at the time `now` if it may pass, and return 0; else the seconds until one would.

        `merchant_id` says whose request it is, and whose time may have been passed by hand. `window` and `now` are in
        seconds (Unix time), to the millisecond. Raises an error of REDIS_ERRORS when Redis is away.
        """
        if self._redis is None:
            from redis.asyncio import Redis

            self._redis = Redis.from_url(self._url, socket_timeout=1, socket_connect_timeout=1)
        # Worlds of one seed have API keys of the same ids, so the merchant's is part of the name.
        key = f"psp:rate:{scope}:{merchant_id}:{identity}"
        # The times go as text of whole milliseconds: Lua would write a large number in powers of ten.
        milliseconds = await self._redis.eval(  # type: ignore[misc]  # redis-py types one method for both of its clients
            _SCRIPT, 2, key, clock_advance_key(merchant_id), str(int(now * 1000)), str(int(window * 1000)), str(limit)
        )
        return int(milliseconds) / 1000

    async def require(self, scope: str, identity: str, merchant_id: str, per_minute: int) -> None:
        """Let a request pass or raise RATE_LIMITED; UNAVAILABLE when Redis is away: this limit must hold."""
        try:
            seconds = await self.wait(scope, identity, merchant_id, per_minute, MINUTE, time.time())
        except REDIS_ERRORS as error:
            raise unavailable("Redis does not answer, so requests cannot be counted.") from error
        _refuse(seconds, per_minute)

    async def check(self, scope: str, identity: str, merchant_id: str, per_minute: int) -> None:
        """Let a request pass or raise RATE_LIMITED; when Redis is away it passes: nothing is protected by this limit."""
        try:
            seconds = await self.wait(scope, identity, merchant_id, per_minute, MINUTE, time.time())
        except REDIS_ERRORS as error:
            if not self._away:
                _log.warning("redis_unavailable", error=repr(error)[:300], note="requests pass uncounted")
            self._away = True
            return
        self._away = False
        _refuse(seconds, per_minute)

    async def close(self) -> None:
        """Let the connections go."""
        if self._redis is not None:
            await self._redis.aclose()


def _refuse(seconds: float, per_minute: int) -> None:
    if seconds <= 0:
        return
    # Rounded up: after so many whole seconds a request does pass.
    whole = str(-int(-seconds // 1))
    raise Problem(
        "RATE_LIMITED",
        f"At most {per_minute} requests a minute; the next one passes in {whole} s.",
        headers={"Retry-After": whole},
    )
