"""The methods that take several calls. Each is written once, as a program that both clients run."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from psp_sandbox.client._callers import Program
from psp_sandbox.client._calls import Call, given, new_key, query, segment
from psp_sandbox.client._generated import async_clock, async_payouts, clock, payouts
from psp_sandbox.client.errors import NotReached, WaitTimeout
from psp_sandbox.client.models import ClockRun, ClockState, Drained, Payout, PayoutStatus, TimelineEntry

_LONGEST_POLL: Final = 25.0
_ENDED: Final = ("FAILED", "CANCELLED", "REJECTED", "RETURNED")
"""The statuses that a payout leaves only if it is reinitiated."""
_MOST_REPEATS: Final = 20


class PayoutsApi(payouts.PayoutsApi):
    """The payouts, and waiting for them."""

    def wait_for(self, payout_id: str, *statuses: PayoutStatus, timeout: float = 30.0) -> Payout:
        """Wait until a payout is in one of these statuses, or has been since it was last reinitiated, and return it.

        Waits up to `timeout` seconds of real time. Raises WaitTimeout after that, and NotReached as soon as the payout has
        ended in another status; both show its timeline.
        """
        return self._caller.run(_wait_for(payout_id, statuses, timeout))


class AsyncPayoutsApi(async_payouts.AsyncPayoutsApi):
    """The payouts, and waiting for them."""

    async def wait_for(
        self,
        payout_id: str,
        *statuses: PayoutStatus,
        timeout: float = 30.0,
    ) -> Payout:
        """Wait until a payout is in one of these statuses, or has been since it was last reinitiated, and return it.

        Waits up to `timeout` seconds of real time. Raises WaitTimeout after that, and NotReached as soon as the payout has
        ended in another status; both show its timeline.
        """
        return await self._caller.run(_wait_for(payout_id, statuses, timeout))


class ClockApi(clock.ClockApi):
    """The clock of the merchant."""

    def advance(
        self, *, seconds: float | None = None, to: datetime | str | None = None, idempotency_key: str | None = None
    ) -> ClockRun:
        """Advance the clock by `seconds`, or to a time, and run all that becomes due on the way. `ran` lists it.

        A long advance takes several calls; the result is that of all. `complete` is false, and `stopped_because` says why, if
        work remains that cannot be done, for example because a webhook endpoint does not respond.
        """
        return self._caller.run(_advance(seconds, to, idempotency_key))


class AsyncClockApi(async_clock.AsyncClockApi):
    """The clock of the merchant."""

    async def advance(
        self, *, seconds: float | None = None, to: datetime | str | None = None, idempotency_key: str | None = None
    ) -> ClockRun:
        """Advance the clock by `seconds`, or to a time, and run all that becomes due on the way. `ran` lists it.

        A long advance takes several calls; the result is that of all. `complete` is false, and `stopped_because` says why, if
        work remains that cannot be done, for example because a webhook endpoint does not respond.
        """
        return await self._caller.run(_advance(seconds, to, idempotency_key))


def drain(idempotency_key: str | None) -> Program[Drained]:
    """Drain until nothing is due, or until a call makes no progress."""
    call = Call(
        Drained, "POST", "/sandbox/v1/drain", body={}, idempotency_key=idempotency_key or new_key(), waits=_LONGEST_POLL
    )
    run: Drained = yield call
    for _ in range(_MOST_REPEATS):
        if run.drained:
            break
        more: Drained = yield call
        run = replace(more, steps=run.steps + more.steps, ran=[*run.ran, *more.ran])
        if more.steps == 0:
            break
    return run


def _advance(seconds: float | None, to: datetime | str | None, idempotency_key: str | None) -> Program[ClockRun]:
    # The sandbox keeps the goal under the key: the same call again continues to the same goal.
    call = Call(
        ClockRun,
        "POST",
        "/sandbox/v1/clock/advance",
        body=given({"seconds": seconds, "to": to}),
        idempotency_key=idempotency_key or new_key(),
        waits=_LONGEST_POLL,
    )
    run: ClockRun = yield call
    for _ in range(_MOST_REPEATS):
        if run.complete:
            break
        more: ClockRun = yield call
        run = replace(more, from_=run.from_, steps=run.steps + more.steps, ran=[*run.ran, *more.ran])
        if more.steps == 0:
            break
    return run


def _wait_for(payout_id: str, statuses: Sequence[str], timeout: float) -> Program[Payout]:
    if not statuses:
        raise ValueError("name at least one status to wait for")
    path = f"/api/v1/payouts/{segment(payout_id)}"
    left = timeout
    while True:
        # Counts the seconds that the sandbox waits, and reads no clock: a test may have frozen that of this process.
        seconds = max(0.0, min(left, _LONGEST_POLL))
        parameters: dict[str, Any] = {"wait_for": statuses, "timeout": seconds}
        payout: Payout = yield Call(Payout, "GET", path, query=query(parameters), waits=seconds)
        if payout.status in statuses:
            return payout
        timeline: list[TimelineEntry] = yield Call(list[TimelineEntry], "GET", f"{path}/timeline", member="data")
        if any(entry.to in statuses for entry in _since_reinitiated(timeline)):
            return payout
        wanted = tuple(statuses)
        if payout.status in _ENDED:
            raise NotReached(payout, wanted, timeline, "it has ended.")
        left -= seconds
        if left <= 0:
            state: ClockState = yield Call(ClockState, "GET", "/sandbox/v1/clock")
            hint = f" The merchant's clock is frozen at {state.now.isoformat()}; advance it." if state.frozen else ""
            raise WaitTimeout(payout, wanted, timeline, f"{timeout:g} s have passed.{hint}")


def _since_reinitiated(timeline: Sequence[TimelineEntry]) -> Sequence[TimelineEntry]:
    """Return the part of a timeline since the payout was last reinitiated."""
    starts = [number for number, entry in enumerate(timeline) if entry.from_ in _ENDED and entry.to == "PENDING"]
    return timeline[starts[-1] :] if starts else timeline
