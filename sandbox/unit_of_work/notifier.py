"""Notify the rest of the process of units of work. Wake-ups, caches and the live feed subscribe here."""

from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.metrics import STATUSES

Hook = Callable[[UnitOfWork], Awaitable[None]]
_log = structlog.get_logger()


class Notifier:
    """The hooks of one process. They must be quick, must not block, and hand slow work off."""

    def __init__(self) -> None:
        self.before_commit: list[Hook] = []
        """Called before a unit is written and committed, under the merchant's lock. An error rolls the unit back.

        Only for caches that must be invalidated before anyone can see the commit.
        """
        self.after_commit: list[Hook] = []
        """Called right after the commit. Exceptions are logged and otherwise ignored."""

    async def notify_before_commit(self, unit: UnitOfWork) -> None:
        """Call the before-commit hooks."""
        for hook in self.before_commit:
            await hook(unit)

    async def notify_after_commit(self, unit: UnitOfWork) -> None:
        """Count a committed unit's status changes, log its stuck payouts, and call the after-commit hooks."""
        for payout_id, error in unit.stuck.items():
            _log.error("step_impossible", merchant_id=unit.merchant_id, payout_id=payout_id, error=error)
        entered = Counter(event.to_status for event in unit.events if event.to_status is not None)
        for status, count in entered.items():
            STATUSES.labels(status).inc(count)
        for hook in self.after_commit:
            try:
                await hook(unit)
            except Exception:
                _log.exception("hook_failed", merchant_id=unit.merchant_id)
