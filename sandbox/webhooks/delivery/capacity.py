"""Share a process's calls among webhook endpoints, so that one hanging endpoint does not delay the others. Pure.

A call that hangs lasts 15 s; a normal call lasts milliseconds. With one common limit, hanging calls would soon use all of it.
So a merchant's calls in progress are limited to a quarter of the capacity that is free at that moment, and an endpoint's to
half of what its merchant has left. Hanging calls therefore always leave capacity for others: the more calls hang, the lower
each endpoint's limit. An endpoint that responds promptly needs few calls. (Network switches share their buffers by the same
dynamic thresholds: Choudhury and Hahne, 1998.)

An endpoint that only fails gets pauses, and one that asks to slow down gets few calls. A merchant's failing endpoints share few
calls, and their pauses end at different times. Otherwise a dozen of them would get hundreds of calls in the same moment, and
other merchants' calls would wait.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

CALLS: Final = 2000
"""Maximum number of calls in progress in one process."""
ENDPOINT_CALLS: Final = 128
"""Maximum number of calls in progress to one endpoint, however much capacity is free."""
MAX_CALLS_WHEN_SLOWED: Final = 2
"""Maximum number of calls in progress to an endpoint that asked to slow down."""
MAX_FAILURES_IN_A_ROW: Final = 16
"""After this many failed calls without a successful one, an endpoint gets pauses."""
MAX_CALLS_WHEN_FAILING: Final = 32
"""Maximum number of calls in progress to a merchant's endpoints that get pauses. Each may always have one."""
PAUSE_SECONDS: Final = 0.5
"""The shortest pause; the longest is twice as long."""
_MAX_ENDPOINTS: Final = 16
"""Maximum number of endpoints per merchant; all of them can use their capacity at the same time."""
_MIN_CALLS: Final = 8
_MAX_TRACKED_MERCHANTS: Final = 10_000


class FreeCapacity(NamedTuple):
    """The number of calls that can start: to each endpoint in `by_endpoint`, and to each of the merchant's other endpoints."""

    by_endpoint: dict[str, int]
    default: int


@dataclass(slots=True)
class _Failures:
    """The failed calls to an endpoint since the last successful one."""

    count: int = 0
    paused_until: float = 0.0


@dataclass(slots=True)
class _Merchant:
    total: int = 0
    calls: dict[str, int] = field(default_factory=dict)


class Capacity:
    """Counts calls in progress by merchant and endpoint. Endpoint ids are unique only within their merchant."""

    def __init__(self, limit: int = CALLS) -> None:
        """`limit` is the maximum number of calls in progress."""
        self._free = limit
        self._reserved = 0
        self._merchants: dict[str, _Merchant] = {}
        self._slowed: dict[str, dict[str, float]] = {}
        self._failures: dict[str, dict[str, _Failures]] = {}

    def free_capacity(self, merchant_id: str, now: float) -> FreeCapacity:
        """Return how many calls can start for a merchant. `now` is in seconds of a monotonic clock.

        All endpoints can use their capacity at the same time. When an endpoint has used its share, another call can return
        more.
        """
        merchant = self._merchants.get(merchant_id) or _Merchant()
        left = max(0, (self._free - self._reserved) // 4 - merchant.total)
        share = min(ENDPOINT_CALLS, left // 2)
        # A merchant can already exceed its share, because other merchants started calls later. Each of its endpoints still gets
        # a few calls.
        minimum = min(_MIN_CALLS, max(1, (self._free - self._reserved) // 64)) if self._free >= 64 else 0
        below = sorted((calls, endpoint_id) for endpoint_id, calls in merchant.calls.items() if calls < share)
        other_endpoints = max(0, _MAX_ENDPOINTS - len(merchant.calls))
        by_endpoint = {endpoint_id: max(0, minimum - calls) for endpoint_id, calls in merchant.calls.items()}
        # If all endpoints use their capacity now, they take no more than half of what is left.
        # Half of that is for endpoints that have calls, because most merchants have fewer endpoints than they may have, and a
        # claim that returns more deliveries costs less for each.
        for_others = left // 2 if not below else left // 4 if other_endpoints else 0
        part, rest = divmod(left // 2 - for_others, max(1, len(below)))
        for calls, endpoint_id in below:
            # The remainder of the division goes to the endpoints with the fewest calls.
            by_endpoint[endpoint_id] = max(by_endpoint[endpoint_id], min(part + (rest > 0), share - calls))
            rest -= rest > 0
        default_capacity = max(minimum, min(max(for_others // max(1, other_endpoints), 1), left))
        for endpoint_id in self._still_slowed(merchant_id, now):
            calls = merchant.calls.get(endpoint_id, 0)
            by_endpoint[endpoint_id] = max(
                0, min(MAX_CALLS_WHEN_SLOWED - calls, by_endpoint.get(endpoint_id, default_capacity))
            )
        failing = self._failing(merchant_id)
        for endpoint_id, failures in failing.items():
            limit = max(1, MAX_CALLS_WHEN_FAILING // len(failing))
            free = min(limit - merchant.calls.get(endpoint_id, 0), by_endpoint.get(endpoint_id, default_capacity))
            by_endpoint[endpoint_id] = 0 if now < failures.paused_until else max(0, free)
        return FreeCapacity(by_endpoint, default_capacity)

    @contextmanager
    def reserve_capacity(self, merchant_id: str, now: float) -> Iterator[FreeCapacity]:
        """Yield a merchant's free capacity, and reserve it until the claim has ended and its calls have started.

        Without the reservation, concurrent claims would use the same capacity twice.
        """
        free = self.free_capacity(merchant_id, now)
        merchant = self._merchants.get(merchant_id)
        other_endpoints = max(0, _MAX_ENDPOINTS - (0 if merchant is None else len(merchant.calls)))
        reserved = sum(free.by_endpoint.values()) + other_endpoints * free.default
        self._reserved += reserved
        try:
            yield free
        finally:
            self._reserved -= reserved

    def begin(self, merchant_id: str, endpoint_id: str) -> None:
        """Count a call that starts. It counts until `end`."""
        merchant = self._merchants.setdefault(merchant_id, _Merchant())
        merchant.total += 1
        merchant.calls[endpoint_id] = merchant.calls.get(endpoint_id, 0) + 1
        self._free -= 1

    def begin_up_to(self, merchant_id: str, wanted: Mapping[str, int], now: float) -> Mapping[str, int]:
        """Begin as many of the wanted calls as possible, given the number per endpoint. Return how many began, per endpoint."""
        begun: Counter[str] = Counter()
        while True:
            free = self.free_capacity(merchant_id, now)
            before = begun.total()
            for endpoint_id, count in wanted.items():
                for _ in range(min(count - begun[endpoint_id], free.by_endpoint.get(endpoint_id, free.default))):
                    self.begin(merchant_id, endpoint_id)
                    begun[endpoint_id] += 1
            # The share of an endpoint that has calls can be larger than that of one without any.
            if begun.total() == before:
                return begun

    def end(self, merchant_id: str, endpoint_id: str) -> None:
        """Stop counting a call whose result is recorded."""
        merchant = self._merchants[merchant_id]
        merchant.total -= 1
        merchant.calls[endpoint_id] -= 1
        self._free += 1
        if not merchant.calls[endpoint_id]:
            del merchant.calls[endpoint_id]
        if not merchant.total:
            del self._merchants[merchant_id]

    def slow_down(self, merchant_id: str, endpoint_id: str, until: float) -> None:
        """Limit an endpoint to MAX_CALLS_WHEN_SLOWED until a time of the monotonic clock that `free_capacity` uses."""
        if len(self._slowed) >= _MAX_TRACKED_MERCHANTS:  # entries of merchants that no longer deliver are never looked up
            self._slowed.clear()
        self._slowed.setdefault(merchant_id, {})[endpoint_id] = until

    def succeeded(self, merchant_id: str, endpoint_id: str) -> None:
        """Note that an endpoint accepted a webhook."""
        failures = self._failures.get(merchant_id)
        if failures is not None:
            failures.pop(endpoint_id, None)
            if not failures:
                del self._failures[merchant_id]

    def failed(self, merchant_id: str, endpoint_id: str, now: float) -> float | None:
        """Note that an attempt failed, at a time of the monotonic clock. Return the length of the pause that begins, if any.

        Without pauses, an endpoint that refuses connections would get thousands of attempts per second if it has a large
        backlog, and their CPU time would be missing for all other endpoints.
        """
        if len(self._failures) >= _MAX_TRACKED_MERCHANTS:
            self._failures.clear()
        failures = self._failures.setdefault(merchant_id, {}).setdefault(endpoint_id, _Failures())
        failures.count += 1
        # Calls that were in progress together fail together: they begin one pause, not one each.
        if failures.count < MAX_FAILURES_IN_A_ROW or now < failures.paused_until:
            return None
        # Up to twice as long, by the endpoint's id, so that several endpoints are not called in the same moment.
        pause = PAUSE_SECONDS * (1 + sha256(endpoint_id.encode()).digest()[0] / 256)
        failures.paused_until = now + pause
        return pause

    def paused(self, merchant_id: str, now: float) -> frozenset[str]:
        """Return the merchant's endpoints whose pause has not ended."""
        failures = self._failures.get(merchant_id)
        if failures is None:
            return frozenset()
        return frozenset(endpoint_id for endpoint_id, found in failures.items() if now < found.paused_until)

    def _failing(self, merchant_id: str) -> dict[str, _Failures]:
        """Return the merchant's endpoints that get pauses."""
        found = self._failures.get(merchant_id, {})
        return {id_: failures for id_, failures in found.items() if failures.count >= MAX_FAILURES_IN_A_ROW}

    def _still_slowed(self, merchant_id: str, now: float) -> list[str]:
        slowed = self._slowed.get(merchant_id)
        if slowed is None:
            return []
        for endpoint_id in [endpoint_id for endpoint_id, until in slowed.items() if until <= now]:
            del slowed[endpoint_id]
        if not slowed:
            del self._slowed[merchant_id]
        return list(slowed)
