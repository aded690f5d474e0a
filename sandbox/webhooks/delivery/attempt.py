"""Make one webhook delivery attempt: sign, post, classify the response and record the result.

Used by workers and the clock advancer.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final, Protocol

import structlog
from prometheus_client import Histogram

from sandbox.domain.clock import render
from sandbox.domain.redaction import address
from sandbox.domain.trace import trace_id
from sandbox.http.journal.journal import Journal
from sandbox.http.retry_after import parse_retry_after
from sandbox.infrastructure import tracing
from sandbox.infrastructure.backoff import backoff
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.infrastructure.live_feed import Note
from sandbox.infrastructure.metrics import DELIVERY_SECONDS
from sandbox.infrastructure.outages import Outage
from sandbox.infrastructure.secrets_at_rest import SealedSecretError, SecretBox
from sandbox.webhooks.delivery.capacity import Capacity, FreeCapacity
from sandbox.webhooks.delivery.fault_injection import FaultInjectingSender
from sandbox.webhooks.delivery.outbox import (
    AttemptResult,
    ClaimedDelivery,
    ClaimedEndpoint,
    Exchange,
    record_attempts,
    release_claims,
)
from sandbox.webhooks.delivery.receiver_time import ReceiverTime, hosts_time
from sandbox.webhooks.delivery.retry_schedule import classify_response, is_final, next_attempt, slows_down
from sandbox.webhooks.delivery.signer import SignerCache
from sandbox.webhooks.delivery.start_times import StartTimes
from sandbox.webhooks.outbound.sender import TIMEOUT, Sender, SendResult

MAX_RECORDED_ATTEMPTS: Final = 256
"""Maximum number of attempts recorded in one transaction."""
_SLOW_DOWN_SECONDS: Final = 5.0
_RECHECK_SECONDS: Final = 0.25
MAX_ATTEMPT_DURATION: Final = timedelta(seconds=TIMEOUT + 1)
"""Maximum duration of one attempt."""
_log = structlog.get_logger()


# Looked up once, because looking up a label costs as much as an observation.
@cache
def _seconds(outcome: str) -> Histogram:
    return DELIVERY_SECONDS.labels(outcome)


def split_into_sequences(claimed: Iterable[ClaimedDelivery]) -> list[list[ClaimedDelivery]]:
    """Split deliveries into sequences that can proceed in parallel.

    If the clock is frozen, all deliveries to one endpoint form one sequence and keep their order. Otherwise each delivery is
    its own sequence.
    """
    sequences: list[list[ClaimedDelivery]] = []
    sequence_by_endpoint: dict[str, list[ClaimedDelivery]] = {}
    for delivery in claimed:
        if delivery.clock.frozen_at is not None and delivery.endpoint_id in sequence_by_endpoint:
            sequence_by_endpoint[delivery.endpoint_id].append(delivery)
        else:
            sequence_by_endpoint[delivery.endpoint_id] = sequence = [delivery]
            sequences.append(sequence)
    return sequences


class Translator(Protocol):
    """Writes webhooks as another provider does."""

    def applies_to(self, endpoint: ClaimedEndpoint) -> bool:
        """Return whether the endpoint gets such webhooks."""

    async def translate(self, merchant_id: str, claimed: ClaimedDelivery) -> ClaimedDelivery:
        """Return the delivery with its translated body. Raises CONNECTION_ERRORS."""


class AttemptRunner:
    """Makes attempts at claimed deliveries.

    `wake_later` receives a merchant and the seconds until its next attempt. `on_recorded` receives a merchant and a live-feed
    note for each attempt recorded. The journal records each fault that hits. The translator, if any, writes the bodies for
    endpoints that were created through a dialect.
    """

    def __init__(
        self,
        sender: Sender,
        box: SecretBox,
        wake_later: Callable[[str, float], None] = lambda merchant_id, seconds: None,
        on_recorded: Callable[[str, Sequence[Note]], None] = lambda merchant_id, notes: None,
        journal: Journal | None = None,
        receiver_time: ReceiverTime = hosts_time,
        translator: Translator | None = None,
    ) -> None:
        self._sender = FaultInjectingSender(sender, journal, receiver_time)
        self._translator = translator
        self._signers = SignerCache(box)
        self._wake_later = wake_later
        # Bound once. Otherwise structlog would bind a logger for each line.
        self._log = structlog.get_logger().bind()
        self._on_recorded = on_recorded
        self._capacity = Capacity()
        self._start_times = StartTimes()

    def reserve_capacity(self, merchant_id: str) -> AbstractContextManager[FreeCapacity]:
        """Yield how many deliveries each endpoint of the merchant can receive; reserve that capacity until the context ends."""
        return self._capacity.reserve_capacity(merchant_id, time.monotonic())

    def paused(self, merchant_id: str) -> frozenset[str]:
        """Return the merchant's endpoints that are paused because all calls fail. A timer wakes the merchant afterwards."""
        return self._capacity.paused(merchant_id, time.monotonic())

    def begin(self, merchant_id: str, sequences: Iterable[Sequence[ClaimedDelivery]]) -> None:
        """Count each claimed sequence as one call in progress. `attempt_sequence` or `end` ends it."""
        for sequence in sequences:
            self._capacity.begin(merchant_id, sequence[0].endpoint_id)

    def begin_up_to(self, merchant_id: str, wanted: Mapping[str, int]) -> Mapping[str, int]:
        """Begin as many of the wanted calls as possible, given the number per endpoint. Return how many began, per endpoint."""
        return self._capacity.begin_up_to(merchant_id, wanted, time.monotonic())

    def end(self, merchant_id: str, endpoint_id: str, calls: int) -> None:
        """Stop counting calls that were begun and will not be made."""
        for _ in range(calls):
            self._capacity.end(merchant_id, endpoint_id)

    async def attempt(self, merchant_id: str, claimed: ClaimedDelivery) -> AttemptResult:
        """Make one attempt and decide the delivery's new status. Raises nothing but CancelledError."""
        at, sent = await self.send(merchant_id, claimed)
        return self.decide(merchant_id, claimed, at, sent)

    async def send(self, merchant_id: str, claimed: ClaimedDelivery) -> tuple[datetime, Exchange]:
        """Sign a delivery and send it once. Return when, in the merchant's time, and what came back.

        Raises nothing but CancelledError.
        """
        at = claimed.clock.now(datetime.now(UTC))
        try:
            signer = self._signers.find(merchant_id, claimed.endpoint_id, claimed.endpoint)
        except (SealedSecretError, ValueError):
            # Sealed under another SANDBOX_SECRET_KEY. Fail the attempt, so that the delivery log shows the reason.
            reason = "the endpoint's secret cannot be decrypted with this SANDBOX_SECRET_KEY"
            return at, Exchange("", None, SendResult(None, {}, "", reason, 0, error_class="SECRET"))
        if self._translator is not None and self._translator.applies_to(claimed.endpoint):
            try:
                claimed = await self._translator.translate(merchant_id, claimed)
            except (*CONNECTION_ERRORS, *RETRYABLE) as error:
                _log.warning("translation_failed", merchant_id=merchant_id, error=type(error).__name__)
                reason = "the event could not be read from the database"
                return at, Exchange("", None, SendResult(None, {}, "", reason, 0, error_class="INTERNAL"))
        return at, await self._sender.send(merchant_id, claimed, at, signer)

    async def attempt_sequence(
        self,
        merchant_id: str,
        sequence: Sequence[ClaimedDelivery],
        on_attempt: Callable[[AttemptResult], None],
        may_continue: Callable[[], bool] = lambda: True,
    ) -> int:
        """Make a sequence's attempts one after the other and pass each result to `on_attempt`.

        Call `begin` with the sequence first; this method ends it. If an attempt could outlast its lease, if the endpoint
        responded with 410, or if `may_continue` returns False, it releases the rest of the sequence, which stays due. If the
        endpoint is ordered and an attempt must be repeated, it releases the later deliveries of the same payout. Returns the
        number of deliveries released. Raises nothing but CancelledError.
        """
        is_gone = False
        failed_payouts: set[str] = set()
        released: list[ClaimedDelivery] = []
        try:
            for index, claimed in enumerate(sequence):
                if claimed.slot is not None:
                    await self._start_times.wait_for(merchant_id, claimed.endpoint_id, claimed.slot)
                is_late = datetime.now(UTC) > claimed.lease - MAX_ATTEMPT_DURATION
                if (index and (is_gone or not may_continue() or is_late)) or (is_late and claimed.slot is not None):
                    released += sequence[index:]
                    break
                if claimed.payout_id in failed_payouts:
                    released.append(claimed)
                    continue
                result = await self.attempt(merchant_id, claimed)
                on_attempt(result)
                is_gone = result.gone
                if claimed.payout_id is not None and result.status == "PENDING":
                    failed_payouts.add(claimed.payout_id)
            if released:
                await self._release(merchant_id, released)
        finally:
            self._capacity.end(merchant_id, sequence[0].endpoint_id)
        return len(released)

    async def _release(self, merchant_id: str, claimed: Sequence[ClaimedDelivery]) -> None:
        try:
            await release_claims(merchant_id, claimed)
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            # The leases expire by themselves.
            _log.warning("release_failed", merchant_id=merchant_id, error=type(error).__name__)

    def recheck_soon(self, merchant_id: str) -> None:
        """Wake the merchant again shortly: another process is still posting earlier deliveries."""
        self._wake_later(merchant_id, _RECHECK_SECONDS)

    def recheck_after(self, merchant_id: str, seconds: float) -> None:
        """Wake the merchant again after this time, when a rate limit allows more attempts."""
        self._wake_later(merchant_id, seconds)

    def _postpone(self, merchant_id: str, claimed: ClaimedDelivery, at: datetime, sent: Exchange) -> AttemptResult:
        """Return an attempt that a fault postponed. It appears in the log, but uses up no retry."""
        assert sent.not_before is not None
        if claimed.clock.frozen_at is None:
            self._wake_later(merchant_id, (sent.not_before - at).total_seconds())
        return AttemptResult(
            claimed=claimed,
            scheduled_attempts=claimed.scheduled_attempts,
            status="PENDING",
            next_attempt_at=sent.not_before,
            at=at,
            exchange=sent,
        )

    async def record(self, merchant_id: str, results: Sequence[AttemptResult]) -> None:
        """Write up to MAX_RECORDED_ATTEMPTS attempts with their deliveries' new statuses, until PostgreSQL accepts them."""
        outage = Outage("record_failed", merchant_id=merchant_id)
        try:
            try:
                await record_attempts(merchant_id, results)  # without tenacity, which would be a tenth of the cost
            except (*CONNECTION_ERRORS, *RETRYABLE):
                await backoff(0.05, 2.0, (*CONNECTION_ERRORS, *RETRYABLE), outage.log)(record_attempts, merchant_id, results)
        except Exception:
            # Do not end the caller's loop. The leases expire, and the webhooks are delivered again, which is allowed.
            _log.exception("record_refused", merchant_id=merchant_id)
            return
        self.publish(merchant_id, results)

    def publish(self, merchant_id: str, results: Sequence[AttemptResult]) -> None:
        """Publish recorded attempts on the live feed."""
        self._on_recorded(merchant_id, [_note(result) for result in results])

    def decide(self, merchant_id: str, claimed: ClaimedDelivery, at: datetime, sent: Exchange) -> AttemptResult:
        """Decide a delivery's new status and its next attempt, after an attempt at the merchant's time `at`."""
        if sent.not_before is not None:
            return self._postpone(merchant_id, claimed, at, sent)
        result = sent.result
        profile = claimed.endpoint.retry_profile
        outcome = classify_response(result.status, profile) if result.error is None or result.status == 410 else "failed"
        _seconds(outcome).observe(result.duration_ms / 1000)
        wall_now = datetime.now(UTC)
        due: datetime | None = None
        status = "SUCCEEDED"
        if outcome == "succeeded":
            self._capacity.succeeded(merchant_id, claimed.endpoint_id)
        else:
            retry_after = parse_retry_after(result.response_headers.get("retry-after"), wall_now)
            pause = self._capacity.failed(merchant_id, claimed.endpoint_id, time.monotonic())
            if pause is not None:
                self._wake_later(merchant_id, pause)
            if slows_down(result.status):
                seconds = retry_after.total_seconds() if retry_after is not None else _SLOW_DOWN_SECONDS
                self._capacity.slow_down(merchant_id, claimed.endpoint_id, time.monotonic() + min(seconds, 60.0))
            now = claimed.clock.now(wall_now)
            if not is_final(result.status, profile):
                due = next_attempt(profile, claimed.scheduled_attempts + 1, now, claimed.id, retry_after)
            status = "FAILED" if due is None else "PENDING"
            if due is not None and claimed.clock.frozen_at is None:
                self._wake_later(merchant_id, (due - now).total_seconds())
        self._log.info(
            "delivery_attempt",
            request_id=claimed.request_id,
            trace_id=trace_id(claimed.traceparent),
            merchant_id=merchant_id,
            event_id=claimed.event_id,
            delivery_id=claimed.id,
            attempt=claimed.attempt,
            outcome=outcome,
            status=result.status,
            error=result.error,
            ms=result.duration_ms,
        )
        if tracing.is_on():
            _export_span(merchant_id, claimed, result)
        return AttemptResult(
            claimed=claimed,
            scheduled_attempts=claimed.scheduled_attempts + 1,
            status=status,
            next_attempt_at=due,
            at=at,
            exchange=sent,
            gone=outcome == "gone",
        )


def _export_span(merchant_id: str, claimed: ClaimedDelivery, result: SendResult) -> None:
    attributes = {
        "http.request.method": "POST",
        "url.full": address(claimed.endpoint.url),
        "http.response.status_code": result.status,
        "error.type": result.error_class,
        "psp.merchant.id": merchant_id,
        "psp.event.id": claimed.event_id,
        "psp.event.type": claimed.event_type,
        "psp.endpoint.id": claimed.endpoint_id,
        "psp.delivery.id": claimed.id,
        "psp.attempt": claimed.attempt,
        "psp.manual": claimed.manual,
        "psp.request.id": claimed.request_id,
    }
    error = result.error or (result.error_class and f"status {result.status}")
    seconds = result.duration_ms / 1000
    tracing.span(f"webhook {claimed.event_type}", claimed.traceparent, seconds, attributes, kind="CLIENT", error=error)


def _note(result: AttemptResult) -> Note:
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
            "status": result.exchange.result.status,
            "error": result.exchange.result.error,
            "error_class": result.exchange.result.error_class,
            "duration_ms": result.exchange.result.duration_ms,
        },
    )
