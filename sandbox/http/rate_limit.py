"""Sliding-window rate limits, counted in Redis across all processes.

The window is measured in host time plus the time by which the merchant's clock was advanced. A frozen clock does not stop it.
"""

import time
from typing import TYPE_CHECKING, Final

from sandbox.domain.errors import Problem, unavailable
from sandbox.infrastructure.clock_advance import clock_advance_key
from sandbox.infrastructure.outages import Outage
from sandbox.infrastructure.redis_errors import REDIS_ERRORS

if TYPE_CHECKING:
    from redis.asyncio import Redis

MINUTE: Final = 60.0

# The list holds the times of the last allowed requests, oldest first, at most `limit` of them. A request is allowed if the
# entry `limit` places from the end is at least one window old. Redis runs scripts atomically, and the cost does not depend on
# the limit. If a process's clock is behind the newest recorded time, that time is used instead, so that no window exceeds the
# limit. Times from a clock that is ahead disappear when Redis expires the list, one window after the last allowed request.
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


class RateLimiter:
    """Counts requests by scope, merchant and identity."""

    def __init__(self, redis_url: str) -> None:
        """The connection to Redis opens with the first limited request."""
        self._url = redis_url
        self._redis: Redis | None = None
        self._outage = Outage("redis_unavailable", note="requests are not rate limited")

    async def acquire(self, scope: str, identity: str, merchant_id: str, limit: int, window: float, now: float) -> float:
        """Count a request if it is allowed and return 0; otherwise return the seconds until the next one is allowed.

        `merchant_id` selects the clock whose advances count. `window` (seconds) and `now` (Unix time in seconds) have
        millisecond precision. Raises one of REDIS_ERRORS if Redis is unavailable.
        """
        if self._redis is None:
            from redis.asyncio import Redis

            self._redis = Redis.from_url(self._url, socket_timeout=1, socket_connect_timeout=1)
        # Merchants with the same seed have API keys with the same ids, so the Redis key includes the merchant id.
        key = f"psp:rate:{scope}:{merchant_id}:{identity}"
        # Send times as strings of whole milliseconds: Lua would format large numbers in scientific notation.
        milliseconds = await self._redis.eval(  # type: ignore[misc]  # redis-py types this method for its sync and async clients alike
            _SCRIPT, 2, key, clock_advance_key(merchant_id), str(int(now * 1000)), str(int(window * 1000)), str(limit)
        )
        return int(milliseconds) / 1000

    async def enforce(self, scope: str, identity: str, merchant_id: str, per_minute: int) -> None:
        """Count a request. Raises RATE_LIMITED, or UNAVAILABLE if Redis is unavailable: this limit must always hold."""
        try:
            seconds = await self.acquire(scope, identity, merchant_id, per_minute, MINUTE, time.time())
        except REDIS_ERRORS as error:
            raise unavailable("Redis is unavailable, so requests cannot be counted.") from error
        _raise_if_limited(seconds, per_minute)

    async def enforce_if_redis_is_up(self, scope: str, identity: str, merchant_id: str, per_minute: int) -> None:
        """Count a request. Raises RATE_LIMITED. Allows the request if Redis is unavailable: this limit is only simulated."""
        try:
            seconds = await self.acquire(scope, identity, merchant_id, per_minute, MINUTE, time.time())
        except REDIS_ERRORS as error:
            self._outage.log_once(error)
            return
        self._outage.ended()
        _raise_if_limited(seconds, per_minute)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._redis is not None:
            await self._redis.aclose()


def _raise_if_limited(seconds: float, per_minute: int) -> None:
    if seconds <= 0:
        return
    # Rounded up, so that a retry after this many seconds is allowed.
    retry_after = str(-int(-seconds // 1))
    raise Problem(
        "RATE_LIMITED",
        f"The limit is {per_minute} requests per minute; retry in {retry_after} s.",
        headers={"Retry-After": retry_after},
    )
