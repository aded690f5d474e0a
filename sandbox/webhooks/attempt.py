"""One attempt at a webhook: sign, post, judge, and record what came of it. Workers and a merchant's clock share it."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.domain.clock import render
from sandbox.domain.webhook_schedule import judge, next_attempt, parse_retry_after, slows_down
from sandbox.domain.webhook_signing import decode_secret
from sandbox.infrastructure.backoff import backoff
from sandbox.infrastructure.metrics import DELIVERY_SECONDS
from sandbox.infrastructure.secrets_at_rest import SealedSecretError, SecretBox
from sandbox.journal.journal import Journal
from sandbox.live.feed import Note
from sandbox.webhooks.capacity import Capacity, FreeCapacity
from sandbox.webhooks.faults import FaultyPost, Sent
from sandbox.webhooks.outbox import Claimed, Recorded, give_back, record_attempts
from sandbox.webhooks.sender import TIMEOUT, SendResult, WebhookSender

RECORD_AT_MOST: Final = 256
"""Attempts that one transaction records."""
_SLOW_SECONDS: Final = 5.0
_LOOK_AGAIN_SECONDS: Final = 0.25
_LONGEST: Final = timedelta(seconds=TIMEOUT + 1)
"""What one attempt takes, at most."""
_SECRETS: Final = 10_000
_log = structlog.get_logger()


def runs_of(claimed: Iterable[Claimed]) -> list[list[Claimed]]:
    """Deliveries in runs that may go side by side: each alone, and in a frozen world an endpoint's in one, in their order."""
    runs: list[list[Claimed]] = []
    of_endpoint: dict[str, list[Claimed]] = {}
    for one in claimed:
        if one.clock.frozen_at is not None and one.endpoint_id in of_endpoint:
            of_endpoint[one.endpoint_id].append(one)
        else:
            of_endpoint[one.endpoint_id] = run = [one]
            runs.append(run)
    return runs


class Attempts:
    """Makes attempts at deliveries that were claimed.

    `later` is called with a merchant and the seconds until its next attempt, `on_recorded` with a merchant and notes of the
    attempts that were recorded. The journal records the faults that hit.
    """

    def __init__(
        self,
        sender: WebhookSender,
        box: SecretBox,
        later: Callable[[str, float], None] = lambda merchant_id, seconds: None,
        on_recorded: Callable[[str, Sequence[Note]], None] = lambda merchant_id, notes: None,
        journal: Journal | None = None,
    ) -> None:
        self._post = FaultyPost(sender, journal)
        self._box = box
        self._later = later
        self._on_recorded = on_recorded
        self._secrets: dict[bytes, bytes] = {}
        self._capacity = Capacity()

    def claiming(self, merchant_id: str) -> AbstractContextManager[FreeCapacity]:
        """Give how many deliveries to each of a merchant's endpoints may be claimed, in the context that claims them."""
        return self._capacity.claiming(merchant_id, time.monotonic())

    def begin(self, merchant_id: str, runs: Iterable[Sequence[Claimed]]) -> None:
        """Runs were claimed: each counts as one call under way, until its `in_turn` has ended."""
        for run in runs:
            self._capacity.begin(merchant_id, run[0].endpoint_id)

    async def attempt(self, merchant_id: str, claimed: Claimed) -> Recorded:
        """Make one attempt and decide what follows from it; never raises but for cancellation."""
        at = claimed.clock.now(datetime.now(UTC))
        try:
            secret = self._secret(merchant_id, claimed)
        except (SealedSecretError, ValueError):
            # A secret sealed under another SANDBOX_SECRET_KEY; the attempt fails, and says so where people look.
            result = SendResult(None, {}, "", "the endpoint's secret cannot be opened with this SANDBOX_SECRET_KEY", 0)
            sent = Sent("", None, result)
        else:
            sent = await self._post.post(merchant_id, claimed, at, secret)
            if sent.not_before is not None:
                return self._put_off(merchant_id, claimed, at, sent)
        return self._decide(merchant_id, claimed, at, sent)

    async def in_turn(
        self,
        merchant_id: str,
        run: Sequence[Claimed],
        made: Callable[[Recorded], None],
        may_go_on: Callable[[], bool] = lambda: True,
    ) -> int:
        """Make a run's attempts, one after the other, and tell `made` of each; returns how many were given back instead.

        The run has begun (`begin`), and is over with this.
        Those are given back that could outlast their lease, or come behind an answer of 410 or the moment when `may_go_on`
        says no: they are due as before. Never raises but for cancellation.
        """
        is_gone = False
        try:
            for place, claimed in enumerate(run):
                if place and (is_gone or not may_go_on() or datetime.now(UTC) > claimed.lease - _LONGEST):
                    await self._give_back(merchant_id, run[place:])
                    return len(run) - place
                result = await self.attempt(merchant_id, claimed)
                made(result)
                is_gone = result.gone
        finally:
            self._capacity.end(merchant_id, run[0].endpoint_id)
        return 0

    async def _give_back(self, merchant_id: str, claimed: Sequence[Claimed]) -> None:
        try:
            await give_back(merchant_id, claimed)
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            # Their leases lapse.
            _log.warning("give_back_failed", merchant_id=merchant_id, error=type(error).__name__)

    def look_again(self, merchant_id: str) -> None:
        """Have the merchant looked at again soon: another process is posting what comes before what is due."""
        self._later(merchant_id, _LOOK_AGAIN_SECONDS)

    def _put_off(self, merchant_id: str, claimed: Claimed, at: datetime, sent: Sent) -> Recorded:
        """An attempt that a fault put off: it is in the log, and takes no turn of the schedule."""
        assert sent.not_before is not None
        if claimed.clock.frozen_at is None:
            self._later(merchant_id, (sent.not_before - at).total_seconds())
        return Recorded(
            claimed=claimed,
            scheduled=claimed.scheduled,
            status="PENDING",
            next_attempt_at=sent.not_before,
            at=at,
            signature="",
            signed_at=None,
            fault=sent.fault,
            http_status=None,
            headers={},
            body="",
            error=sent.result.error,
            duration_ms=0,
            gone=False,
        )

    async def record(self, merchant_id: str, results: Sequence[Recorded]) -> None:
        """Write attempts and what follows from them, at most RECORD_AT_MOST; tried until PostgreSQL has taken it."""

        def say(error: BaseException) -> None:
            _log.warning("record_failed", merchant_id=merchant_id, error=repr(error)[:300])

        try:
            await backoff(0.05, 2.0, (*CONNECTION_ERRORS, *RETRYABLE), say)(record_attempts, merchant_id, results)
        except Exception:
            # Their leases lapse and they are delivered again, which is allowed; losing the caller's loop is not.
            _log.exception("record_refused", merchant_id=merchant_id)
            return
        self._on_recorded(merchant_id, [_note(result) for result in results])

    def _decide(self, merchant_id: str, claimed: Claimed, at: datetime, sent: Sent) -> Recorded:
        result = sent.result
        outcome = judge(result.status) if result.error is None or result.status == 410 else "failed"
        DELIVERY_SECONDS.labels(outcome).observe(result.duration_ms / 1000)
        real = datetime.now(UTC)
        due: datetime | None = None
        status = "SUCCEEDED"
        if outcome != "succeeded":
            retry_after = parse_retry_after(result.response_headers.get("retry-after"), real)
            if slows_down(result.status):
                pause = retry_after.total_seconds() if retry_after is not None else _SLOW_SECONDS
                self._capacity.slow_down(merchant_id, claimed.endpoint_id, time.monotonic() + min(pause, 60.0))
            now = claimed.clock.now(real)
            due = next_attempt(claimed.retry_profile, claimed.scheduled + 1, now, claimed.id, retry_after)
            status = "FAILED" if due is None else "PENDING"
            if due is not None and claimed.clock.frozen_at is None:
                self._later(merchant_id, (due - now).total_seconds())
        _log.info(
            "delivery_attempt",
            request_id=claimed.request_id,
            merchant_id=merchant_id,
            event_id=claimed.event_id,
            delivery_id=claimed.id,
            attempt=claimed.attempt,
            outcome=outcome,
            status=result.status,
            error=result.error,
            ms=result.duration_ms,
        )
        return Recorded(
            claimed=claimed,
            scheduled=claimed.scheduled + 1,
            status=status,
            next_attempt_at=due,
            at=at,
            signature=sent.signature,
            signed_at=sent.signed_at,
            fault=sent.fault,
            http_status=result.status,
            headers=result.response_headers,
            body=result.response_body,
            error=result.error,
            duration_ms=result.duration_ms,
            gone=outcome == "gone",
        )

    def _secret(self, merchant_id: str, claimed: Claimed) -> bytes:
        secret = self._secrets.get(claimed.sealed_secret)
        if secret is None:
            opened = self._box.open(claimed.sealed_secret, f"{merchant_id}/{claimed.endpoint_id}")
            if len(self._secrets) >= _SECRETS:
                self._secrets.clear()
            secret = self._secrets[claimed.sealed_secret] = decode_secret(opened)
        return secret


def _note(result: Recorded) -> Note:
    claimed = result.claimed
    return Note(
        "webhook.attempted",
        {
            "at": render(result.at),
            "delivery_id": claimed.id,
            "event_id": claimed.event_id,
            "endpoint_id": claimed.endpoint_id,
            "attempt": claimed.attempt,
            "delivery_status": result.status,
            "status": result.http_status,
            "error": result.error,
            "duration_ms": result.duration_ms,
        },
    )
