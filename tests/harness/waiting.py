"""Wait for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


_LONGEST_PAUSE = 0.1


def until(condition: Callable[[], T], seconds: float = 30, pause: float = 0.01) -> T:
    """Ask until the condition is truthy and return what it gave; AssertionError when the deadline has passed.

    It asks less often the longer it waits, so that waiting leaves the processor to what is waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        # Before the look: when the machine has stood still since the one before, there is one look more.
        is_last = time.monotonic() > deadline
        found = condition()
        if found or is_last:
            assert found, f"did not happen within {seconds} s"
            return found
        time.sleep(pause)
        pause = max(pause, min(pause * 1.5, _LONGEST_PAUSE))
