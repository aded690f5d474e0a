"""Shares out a process's calls to webhook endpoints, so that one that does not answer delays no other. Pure.

A call that hangs lasts 15 s, a call that is answered milliseconds. With one limit for all, calls that hang would soon use
all of it. Here a merchant may have as many calls under way as a quarter of what is free at that moment, and an endpoint half
of what its merchant has left. So calls that hang always leave capacity for others, and the more of them hang, the fewer each
endpoint may have; an endpoint that answers needs few. (These are dynamic thresholds, by which network switches share their
buffers: Choudhury and Hahne, 1998.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

CALLS: Final = 2000
"""Calls under way in one process."""
ENDPOINT_CALLS: Final = 128
"""Calls under way to one endpoint, however much is free."""
SLOWED_CALLS: Final = 2
"""Calls under way to an endpoint that asked for fewer."""
_ENDPOINTS: Final = 16
"""Endpoints of a merchant that may all use their capacity at once."""
_FLOOR: Final = 8
_SLOWED_AT_MOST: Final = 10_000


class FreeCapacity(NamedTuple):
    """How many calls may be begun: to each endpoint named, and to each of a merchant's others."""

    named: dict[str, int]
    others: int


@dataclass(slots=True)
class _Merchant:
    total: int = 0
    calls: dict[str, int] = field(default_factory=dict)


class Capacity:
    """Counts calls under way, by merchant and endpoint. Endpoints' ids are unique within their merchant only."""

    def __init__(self, limit: int = CALLS) -> None:
        """Take how many calls may be under way in all."""
        self._free = limit
        self._kept = 0
        self._merchants: dict[str, _Merchant] = {}
        self._slowed: dict[str, dict[str, float]] = {}

    def free_capacity(self, merchant_id: str, now: float) -> FreeCapacity:
        """How many calls may be begun for a merchant, `now` in seconds of a clock that never goes back.

        All of its endpoints may use theirs at once. One that has used all of it may ask again at once, and gets more.
        """
        merchant = self._merchants.get(merchant_id) or _Merchant()
        left = max(0, (self._free - self._kept) // 4 - merchant.total)
        share = min(ENDPOINT_CALLS, left // 2)
        # A merchant may hold more than its share by now, because others came after it. A few for each endpoint are left.
        floor = min(_FLOOR, max(1, (self._free - self._kept) // 64)) if self._free >= 64 else 0
        below = sorted((calls, endpoint_id) for endpoint_id, calls in merchant.calls.items() if calls < share)
        others = max(0, _ENDPOINTS - len(merchant.calls))
        named = {endpoint_id: max(0, floor - calls) for endpoint_id, calls in merchant.calls.items()}
        # All of them may want theirs at this moment, and together they take no more than half of what is left.
        part, rest = divmod(left // 2, max(1, len(below) + others))
        for calls, endpoint_id in below:
            # What cannot be divided goes to who has the fewest.
            named[endpoint_id] = max(named[endpoint_id], min(part + (rest > others), share - calls))
            rest -= rest > others
        capacity_of_others = max(floor, min(max(part, 1), left))
        for endpoint_id in self._still_slowed(merchant_id, now):
            calls = merchant.calls.get(endpoint_id, 0)
            named[endpoint_id] = max(0, min(SLOWED_CALLS - calls, named.get(endpoint_id, capacity_of_others)))
        return FreeCapacity(named, capacity_of_others)

    @contextmanager
    def claiming(self, merchant_id: str, now: float) -> Iterator[FreeCapacity]:
        """Give a merchant's free capacity, and reserve it until the claim that it is for is over and its calls have begun.

        Claims take a while, and several at once would each take the same capacity.
        """
        free = self.free_capacity(merchant_id, now)
        merchant = self._merchants.get(merchant_id)
        others = max(0, _ENDPOINTS - (0 if merchant is None else len(merchant.calls)))
        kept = sum(free.named.values()) + others * free.others
        self._kept += kept
        try:
            yield free
        finally:
            self._kept -= kept

    def begin(self, merchant_id: str, endpoint_id: str) -> None:
        """A call begins: it counts until `end`."""
        merchant = self._merchants.setdefault(merchant_id, _Merchant())
        merchant.total += 1
        merchant.calls[endpoint_id] = merchant.calls.get(endpoint_id, 0) + 1
        self._free -= 1

    def end(self, merchant_id: str, endpoint_id: str) -> None:
        """A call that began is over, and what came of it is recorded."""
        merchant = self._merchants[merchant_id]
        merchant.total -= 1
        merchant.calls[endpoint_id] -= 1
        self._free += 1
        if not merchant.calls[endpoint_id]:
            del merchant.calls[endpoint_id]
        if not merchant.total:
            del self._merchants[merchant_id]

    def slow_down(self, merchant_id: str, endpoint_id: str, until: float) -> None:
        """An endpoint asked for fewer calls, until a time of the clock that `free_capacity` goes by."""
        if len(self._slowed) >= _SLOWED_AT_MOST:  # merchants that are not asked about any more
            self._slowed.clear()
        self._slowed.setdefault(merchant_id, {})[endpoint_id] = until

    def _still_slowed(self, merchant_id: str, now: float) -> list[str]:
        slowed = self._slowed.get(merchant_id)
        if slowed is None:
            return []
        for endpoint_id in [endpoint_id for endpoint_id, until in slowed.items() if until <= now]:
            del slowed[endpoint_id]
        if not slowed:
            del self._slowed[merchant_id]
        return list(slowed)
