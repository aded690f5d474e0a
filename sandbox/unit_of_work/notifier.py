"""Tell the rest of the process what a unit of work did: the one place where wake-ups, caches and the live feed subscribe."""

from collections.abc import Awaitable, Callable

import structlog

from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.metrics import STATUSES

Listener = Callable[[UnitOfWork], Awaitable[None]]
_log = structlog.get_logger()


class Notifier:
    """The listeners of one process. They are quick, never block, and hand slow work on."""

    def __init__(self) -> None:
        self.before_commit: list[Listener] = []
        """Told of a unit when all of it is written, under the merchant's lock. An error rolls the unit back.

        Only for caches that nobody who has seen the commit may find unchanged.
        """
        self.after_commit: list[Listener] = []
        """Told of a unit right after its commit. What they raise is logged, and changes nothing any more."""

    async def committing(self, unit: UnitOfWork) -> None:
        """Tell of a unit that is about to be committed."""
        for listener in self.before_commit:
            await listener(unit)

    async def committed(self, unit: UnitOfWork) -> None:
        """Count what a committed unit did, log what it could not do, and tell the listeners."""
        for payout_id, error in unit.stuck.items():
            _log.error("step_impossible", merchant_id=unit.merchant_id, payout_id=payout_id, error=error)
        for event in unit.events:
            if event.to_status is not None:
                STATUSES.labels(event.to_status).inc()
        for listener in self.after_commit:
            try:
                await listener(unit)
            except Exception:
                _log.exception("listener_failed", merchant_id=unit.merchant_id)
