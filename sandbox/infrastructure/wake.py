"""Wake the workers when a merchant has work. A wake-up is a hint: if it is lost, the next sweep finds the work.

Wake-ups travel in a Redis list. Each of its items has the wake-ups that one process collected, and goes to one worker. A worker
takes all items that there are, so that merchants that wait share its next transaction.
"""

from collections.abc import Sequence
from typing import Final

from sandbox.domain.unit import Effect, UnitOfWork
from sandbox.infrastructure.redis_messages import Command, RedisConnection, RedisSender

STEPS: Final = "steps"
DELIVERIES: Final = "deliveries"
CREDITS: Final = "credits"
WORKER_SEEN: Final = "psp:worker-seen"
"""A key that expires soon and that running workers renew."""
_LIST: Final = "psp:wake-ups"
_MAX_ITEMS: Final = 1000
"""Items that are kept while no worker takes them."""
_MAX_WAKE_UPS: Final = 10_000
"""Maximum number of unsent wake-ups. Further ones are dropped; the sweep finds their work."""
_ITEMS_AT_ONCE: Final = 100
_WAKE_UPS_PER_ITEM: Final = 100
_BLOCK_SECONDS: Final = 5
"""How long Redis waits for an item. A connection that broke silently is found after that time."""
_WORK_DUE_EFFECTS: Final = {Effect.WORK_DUE, Effect.WORLD_RESTORED}
_BULK_CREDIT_EFFECTS: Final = {Effect.BULK_CREDIT_PENDING, Effect.WORLD_RESTORED}


async def take_wake_ups(redis: RedisConnection) -> Sequence[tuple[str, str, int]]:
    """Wait up to 5 seconds for items, and return the kind, merchant and position of their wake-ups. Raises REDIS_ERRORS.

    See `Waker.wake` for the position. Needs Redis 7, the first one with BLMPOP.
    """
    take: Command = ("BLMPOP", _BLOCK_SECONDS, 1, _LIST, "LEFT", "COUNT", _ITEMS_AT_ONCE)
    (found,) = await redis.execute([take], _BLOCK_SECONDS + 2.0)
    wake_ups = [] if found is None else b" ".join(found[1]).decode().split()
    return [(kind, merchant_id, int(position)) for kind, merchant_id, position in (text.split(":") for text in wake_ups)]


class Waker:
    """Sends wake-ups in the background. Never fails and never blocks the caller."""

    def __init__(self, sender: RedisSender) -> None:
        self._sender = sender
        self._wake_ups: dict[tuple[str, str], int] = {}
        sender.add_source(self._take)

    async def committed(self, unit: UnitOfWork) -> None:
        """Wake workers for the work that a committed unit left."""
        due, makes_work_due = unit.next_due, bool(unit.effects & _WORK_DUE_EFFECTS)
        if not unit.suppress_wakeups:
            if makes_work_due or (due is not None and due <= unit.now):
                self.wake(STEPS, unit.merchant_id, unit.ids.first)
            if makes_work_due or any(delivery.enabled for delivery in unit.deliveries):
                self.wake(DELIVERIES, unit.merchant_id, unit.ids.first)
        if unit.effects & _BULK_CREDIT_EFFECTS:
            self.wake(CREDITS, unit.merchant_id, unit.ids.first)

    def wake(self, kind: str, merchant_id: str, position: int) -> None:
        """Wake a worker for a kind of the merchant's work: STEPS, DELIVERIES or CREDITS that are due.

        `position` is that of the unit that left the work. A later unit has seen the work, and has a higher one.
        """
        if len(self._wake_ups) < _MAX_WAKE_UPS:
            self._wake_ups[kind, merchant_id] = position
            self._sender.send_soon()

    def _take(self) -> list[Command]:
        if not self._wake_ups:
            return []
        wake_ups = [f"{kind}:{merchant_id}:{position}" for (kind, merchant_id), position in self._wake_ups.items()]
        self._wake_ups.clear()
        starts = range(0, len(wake_ups), _WAKE_UPS_PER_ITEM)
        items = [" ".join(wake_ups[start : start + _WAKE_UPS_PER_ITEM]) for start in starts]
        return [("RPUSH", _LIST, *items), ("LTRIM", _LIST, -_MAX_ITEMS, -1)]
