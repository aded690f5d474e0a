"""Freeze, advance and resume the merchant's clock."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from datetime import datetime

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call, given, new_key, query
from psp_sandbox.client.models.clock import ClockRun, ClockState, DueWork


class ClockApi:
    """Freeze, advance and resume the merchant's clock."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def get(self) -> ClockState:
        """Get the clock."""
        return self._caller.send(Call(ClockState, "GET", "/sandbox/v1/clock"))

    def advance(
        self, *, seconds: float | None = None, to: datetime | str | None = None, idempotency_key: str | None = None
    ) -> ClockRun:
        """Advance the clock and run everything that falls due, in order.

        Runs payout steps, returns, webhook attempts and their retries, and responds when all of it is done and
        committed. What was already due is done first, and not listed. One request does at most 10,000 steps in 25 s of
        real time; then `complete` is false, and the same request continues. `to` must not be before the merchant's
        current time, nor more than ten years after it.

        Raises InvalidState.
        """
        return self._caller.send(
            Call(
                ClockRun,
                "POST",
                "/sandbox/v1/clock/advance",
                body=given({"seconds": seconds, "to": to}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def due(self, *, limit: int | None = None, payout_id: str | None = None) -> DueWork:
        """List what happens next, soonest first.

        The payout steps, payments of sales and webhook attempts that the merchant's clock will run, if no request
        changes them first. Times before the clock's `now` are overdue: the work is in progress, or starts as soon as a
        worker is free. Payouts that wait for a decision without a time limit, deliveries to disabled endpoints, and
        deliveries that a listener sends are not listed.

        limit: The maximum number of results.
        payout_id: Only what happens to this payout.
        """
        return self._caller.send(
            Call(DueWork, "GET", "/sandbox/v1/clock/due", query=query({"limit": limit, "payout_id": payout_id}))
        )

    def freeze(self, *, at: datetime | str | None = None, idempotency_key: str | None = None) -> ClockRun:
        """Freeze the clock.

        With `at`, the clock first advances to that time. `at` must be at most ten years after the merchant's current
        time, and not before it unless the merchant has no activity yet.

        Raises InvalidState.
        """
        return self._caller.send(
            Call(
                ClockRun,
                "POST",
                "/sandbox/v1/clock/freeze",
                body=given({"at": at}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def resume(self, *, idempotency_key: str | None = None) -> ClockState:
        """Resume the clock from its current time.

        Raises InvalidState.
        """
        return self._caller.send(
            Call(ClockState, "POST", "/sandbox/v1/clock/resume", body=given({}), idempotency_key=idempotency_key or new_key())
        )
