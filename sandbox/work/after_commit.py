"""What follows the commit of a unit of work, before whoever asked for it is answered."""

from collections.abc import Awaitable, Callable
from typing import Final

from sandbox.metrics import STATUSES
from sandbox.work.unit import Unit

OBSERVERS: Final[list[Callable[[Unit], Awaitable[None]]]] = []
"""Who in this process wants to know of each committed unit. They never raise, and are awaited: keep them quick."""


async def committed(unit: Unit) -> None:
    """Count what a committed unit did, and tell the observers."""
    for event in unit.events:
        if event.to_status is not None:
            STATUSES.labels(event.to_status).inc()
    for observer in OBSERVERS:
        await observer(unit)
