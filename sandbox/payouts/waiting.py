"""Wait until payouts reach a state: told by the live feed, never by asking again and again.

The feed says when to look, and PostgreSQL what is so. Those who look at the same moment share one read.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from sandbox.db.engine import connection
from sandbox.db.rows import by_key
from sandbox.domain.payout import COLUMNS, Payout, to_payout
from sandbox.domain.payout_states import CANCELLED, FAILED, REINITIATED, REJECTED, RETURNED, STATUSES, SUCCESS
from sandbox.live.feed import Message
from sandbox.live.listener import LiveListener

_READ_AT_MOST: Final = 256
_FIRST_PAUSE: Final = 0.25
"""Seconds between two looks while the feed is silent because Redis is away; they grow."""
_LONGEST_PAUSE: Final = 2.0

_ENDED: Final = frozenset({FAILED, CANCELLED, REJECTED, RETURNED})
"""Nothing that is waited for comes any more, unless somebody tries a FAILED one again."""
_PASSING: Final = frozenset(STATUSES) - _ENDED - {SUCCESS}
"""What a payout may have been in and has left, without having been tried again since."""

# A try begins with the change from FAILED; the first one with the first change.
_PASSED: Final = """
SELECT EXISTS (
    SELECT FROM events WHERE merchant_id = $1 AND payout_id = $2 AND to_status = ANY ($3::text[])
        AND change >= coalesce((SELECT max(change) FROM events WHERE merchant_id = $1 AND payout_id = $2 AND type = $4), 0)
)
"""
# Looked up one by one: with `= ANY` the planner may read all of the merchant's payouts.
_READ: Final = f"""
SELECT p.* FROM unnest($2::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM payouts WHERE {by_key("payouts", "id", "n.id")} OFFSET 0
) p
"""  # noqa: S608 -- constants


class PayoutWaits:
    """All who wait in this process."""

    def __init__(self, listener: LiveListener) -> None:
        self._listener = listener
        self._merchants: dict[str, _MerchantWaits] = {}
        self._reader = _Reader()

    async def wait(self, merchant_id: str, payout_id: str, statuses: Sequence[str], seconds: float) -> Payout | None:
        """The payout, as soon as it is in one of `statuses` or so many real seconds have passed; None if there is none.

        At once, too, if it has been in one of them since it was last reinitiated, or has ended otherwise.

        Raises asyncpg's errors.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        waits = self._merchants.get(merchant_id)
        if waits is None:
            waits = self._merchants[merchant_id] = _MerchantWaits()
        wait = _Wait(frozenset(statuses))
        waits.add(payout_id, wait)
        pause = _FIRST_PAUSE
        try:
            # First listen, then look: what happens between the two is heard.
            async with self._listener.hearing(merchant_id, waits.hear):
                while True:
                    wait.news.clear()
                    reached = wait.reached
                    payout = await self._reader.get(merchant_id, payout_id)
                    reached = reached or await _is_past(merchant_id, payout, wait.statuses)
                    left = 0.0 if self._listener.closing else deadline - clock()
                    if payout is None or reached or payout.status in wait.statuses or left <= 0:
                        return payout
                    if not self._listener.is_live(merchant_id):
                        left = min(left, pause)
                        pause = min(pause * 2, _LONGEST_PAUSE)
                    try:
                        async with asyncio.timeout(left):
                            await wait.news.wait()
                    except TimeoutError:
                        pass  # one more look, should a message have been lost
        finally:
            waits.remove(payout_id, wait)
            if not waits.by_payout and self._merchants.get(merchant_id) is waits:
                del self._merchants[merchant_id]


async def _is_past(merchant_id: str, payout: Payout | None, statuses: Collection[str]) -> bool:
    """Whether waiting has no point: the payout has ended, or has been in one of the states in its present try."""
    if payout is None or payout.status in statuses:
        return False
    if payout.status in _ENDED:
        return True
    passing = [status for status in statuses if status in _PASSING]
    if not passing:
        return False  # the usual case: a final state that is not reached, of a payout that is under way
    async with connection() as conn:
        return bool(await conn.fetchval(_PASSED, merchant_id, payout.id, passing, REINITIATED))


class _Wait:
    __slots__ = ("news", "reached", "statuses")

    def __init__(self, statuses: frozenset[str]) -> None:
        self.statuses = statuses
        self.news = asyncio.Event()
        self.reached = False
        """Whether it was in one of them, however short the stay, or ended."""


class _MerchantWaits:
    """Who waits for which of a merchant's payouts: a message is looked up in it, however many wait."""

    def __init__(self) -> None:
        self.by_payout: dict[str, set[_Wait]] = {}

    def add(self, payout_id: str, wait: _Wait) -> None:
        self.by_payout.setdefault(payout_id, set()).add(wait)

    def remove(self, payout_id: str, wait: _Wait) -> None:
        waits = self.by_payout[payout_id]
        waits.remove(wait)
        if not waits:
            del self.by_payout[payout_id]

    def hear(self, message: Message | None) -> None:
        if message is None:
            for waits in self.by_payout.values():
                for wait in waits:
                    wait.news.set()
            return
        for transition in message.transitions:
            for wait in self.by_payout.get(transition.payout_id, ()):
                if transition.to in wait.statuses or transition.to in _ENDED:
                    wait.reached = True
                    wait.news.set()


class _Reader:
    """Reads payouts; while one read is under way, those who come gather for the next."""

    def __init__(self) -> None:
        self._wanted: dict[str, dict[str, asyncio.Future[Payout | None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, merchant_id: str, payout_id: str) -> Payout | None:
        """One payout, None if there is none. Raises asyncpg's errors."""
        wanted = self._wanted.setdefault(merchant_id, {})
        future = wanted.get(payout_id)
        if future is None:
            future = wanted[payout_id] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._read_all())
        return await asyncio.shield(future)

    async def _read_all(self) -> None:
        try:
            while self._wanted:
                merchant_id, wanted = self._wanted.popitem()
                ids = list(wanted)
                for begin in range(0, len(ids), _READ_AT_MOST):
                    await _read(merchant_id, {id_: wanted[id_] for id_ in ids[begin : begin + _READ_AT_MOST]})
        finally:
            # No await since the last look, so nobody is left waiting.
            self._task = None


async def _read(merchant_id: str, wanted: "dict[str, asyncio.Future[Payout | None]]") -> None:
    try:
        async with connection() as conn:
            found = {record["id"]: to_payout(record) for record in await conn.fetch(_READ, merchant_id, list(wanted))}
    except Exception as error:
        for future in wanted.values():
            future.set_exception(error)
            future.exception()  # seen, should whoever asked have left
        return
    for payout_id, future in wanted.items():
        future.set_result(found.get(payout_id))
