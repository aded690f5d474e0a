"""Wait for a condition instead of a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


_MAX_PAUSE_SECONDS = 0.1


def until(condition: Callable[[], T], seconds: float = 30, pause: float = 0.01) -> T:
    """Poll until the condition is truthy and return its value. Raises AssertionError after `seconds`.

    The pause between polls (`pause`, in seconds) grows up to 0.1 s, which leaves the processor to the code under test.
    """
    deadline = time.monotonic() + seconds
    while True:
        # Read the time first: if the machine was suspended since the last poll, this polls once more.
        is_last = time.monotonic() > deadline
        found = condition()
        if found or is_last:
            assert found, f"did not happen within {seconds} s"
            return found
        time.sleep(pause)
        pause = max(pause, min(pause * 1.5, _MAX_PAUSE_SECONDS))
