"""Find the merchants that have used much less than the others lately, so that they need not wait for them."""

import asyncio
import mmap
from collections import Counter
from typing import Final

_PERIOD: Final = 1.0
"""Seconds. What merchants used in the current and the last period decides which of them are light."""
_last_light: Final = memoryview(mmap.mmap(-1, 8)).cast("d")
"""When a light merchant was last found, on the monotonic clock. API processes that were forked from one process share it."""


class Use:
    """What merchants have used in the current and the last period, as the cost of their commands."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()
        self._total = 0
        self._periods: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        """What `_used` consists of: the last period and the current one."""
        self._ends = 0.0

    def add(self, merchant_id: str, cost: int) -> None:
        """Count what a merchant uses now."""
        now = asyncio.get_running_loop().time()
        if now >= self._ends:
            ended, last = self._periods
            self._used -= ended  # drops the merchants that have used nothing since
            self._total -= ended.total()
            self._periods = last, Counter()
            self._ends = now + _PERIOD
        self._periods[1][merchant_id] += cost
        self._used[merchant_id] += cost
        self._total += cost

    def is_light(self, merchant_id: str) -> bool:
        """Return whether the merchant has used less than half as much as the average merchant."""
        found = 2 * self._used[merchant_id] * len(self._used) < self._total
        if found:
            _last_light[0] = asyncio.get_running_loop().time()
        return found

    @property
    def has_light(self) -> bool:
        """Whether a light merchant was found lately, in any API process."""
        return asyncio.get_running_loop().time() - _last_light[0] < 2 * _PERIOD
