"""Read a receiver's probe: the page that shows the state of a payout, and how many of its events the receiver acted on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from sandbox.webhooks.receiver_tests.judges import Answer, Limits, Reading, described

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.2
_EACH_EVENT: Final = 1.0
"""How long to wait until each of several events has had its effect. The receiver may not use some of them."""
Get = Callable[[str], Awaitable[Answer]]


class _State(msgspec.Struct):
    status: str | None
    applied: int


_STATE: Final = msgspec.json.Decoder(_State)


class Probe:
    """The probe of one receiver. `get` requests a URL."""

    def __init__(self, url: str, get: Get, limits: Limits) -> None:
        self._start = f"{url.partition('#')[0]}{'&' if '?' in url else '?'}payout_id="
        self._get = get
        self._limits = limits

    async def read(self, payout_id: str) -> Reading:
        """Read the probe for a payout."""
        answer = await self._get(self._start + quote(payout_id))
        if answer.status != 200:
            error = described(answer).replace("the receiver", "it")
            return Reading(error=error, is_unknown=answer.status == 404)
        try:
            found = _STATE.decode(answer.body)
        except msgspec.MsgspecError:
            return Reading(error='its body must be JSON such as {"status": "SUCCESS", "applied": 1}')
        return Reading(found.status, found.applied)

    async def settled(self, payout_id: str) -> Reading:
        """Return the reading as soon as it shows an event of the payout, or the last one before the limit."""
        return await self._until(
            payout_id, lambda reading: reading.status is not None and reading.applied >= 1, self._limits.probe
        )

    async def caught_up(self, payout_id: str, applied: int) -> Reading:
        """Return the reading as soon as the receiver has acted on this many events, or the last one before the limit."""
        return await self._until(payout_id, lambda reading: reading.applied >= applied, min(_EACH_EVENT, self._limits.probe))

    async def settled_all(self, payout_ids: Sequence[str]) -> list[Reading]:
        """Return the readings of several payouts, each as soon as it shows an event."""
        return await asyncio.gather(*map(self.settled, payout_ids))

    async def until_idle(self, payout_ids: Sequence[str], first: Sequence[Reading]) -> list[Reading]:
        """Return the readings of payouts when all of them show an event, or when no further one has done so within the limit.

        `first` are earlier readings of them.
        """
        readings = list(first)
        while True:
            missing = [number for number, reading in enumerate(readings) if not _is_applied(reading)]
            again = await self.settled_all([payout_ids[number] for number in missing])
            for number, reading in zip(missing, again, strict=True):
                readings[number] = reading
            if not any(map(_is_applied, again)):
                return readings

    async def _until(self, payout_id: str, is_enough: Callable[[Reading], bool], seconds: float) -> Reading:
        deadline = time.monotonic() + seconds
        pause = _FIRST_PAUSE
        while True:
            reading = await self.read(payout_id)
            # A receiver may answer 404 until it knows the payout.
            is_error = reading.error is not None and not reading.is_unknown
            if is_enough(reading) or is_error or time.monotonic() > deadline:
                return reading
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _is_applied(reading: Reading) -> bool:
    return reading.error is None and reading.applied > 0
