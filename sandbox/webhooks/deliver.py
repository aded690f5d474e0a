"""Deliver webhooks: claim what is due, call the endpoints side by side, record the results in batches.

The HTTP calls happen between transactions, never inside one. A worker that dies leaves its claims to lapse, and another
delivers again: at least once.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import structlog

from sandbox.control.faults_delivery import FaultyPost, Sent
from sandbox.control.journal import Journal
from sandbox.db.engine import LOST, RETRYABLE
from sandbox.metrics import DELIVERY_SECONDS
from sandbox.secrets_at_rest import SealedSecretError, SecretBox
from sandbox.webhooks.outbox import Claimed, Recorded, claim_due, record_attempts
from sandbox.webhooks.schedule import judge, next_attempt, parse_retry_after, slows_down
from sandbox.webhooks.sender import SendResult, WebhookSender
from sandbox.webhooks.signing import decode_secret

ROOM: Final = 128
"""Calls under way to one endpoint, at most."""
SLOWED_ROOM: Final = 2
_SLOW_SECONDS: Final = 5.0
_RECORD_AT_MOST: Final = 256
_SECRETS: Final = 10_000
_log = structlog.get_logger()


class Deliverer:
    """Delivers for any merchant that it is woken for. `later` is told of a merchant's next attempt: (merchant, seconds)."""

    def __init__(
        self, sender: WebhookSender, box: SecretBox, later: Callable[[str, float], None], journal: Journal | None = None
    ) -> None:
        self._post = FaultyPost(sender, journal)
        self._box = box
        self._later = later
        self._merchants: dict[str, _MerchantDeliveries] = {}
        self._secrets: dict[bytes, bytes] = {}
        self._slow: dict[str, float] = {}
        self._stopping = False

    def wake(self, merchant_id: str) -> None:
        """Look for the merchant's due deliveries, now or as soon as what is under way allows."""
        if self._stopping:
            return
        running = self._merchants.get(merchant_id)
        if running is None:
            running = self._merchants[merchant_id] = _MerchantDeliveries(self, merchant_id)
        running.again.set()

    async def stop(self, seconds: float) -> None:
        """Claim nothing more, and give the calls under way so many seconds to end and be recorded."""
        self._stopping = True
        tasks = [running.task for running in self._merchants.values()]
        for running in self._merchants.values():
            running.again.set()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=seconds)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    @property
    def stopping(self) -> bool:
        """Whether nothing more may be claimed."""
        return self._stopping

    def forget(self, merchant_id: str) -> None:
        """A merchant's loop has ended."""
        self._merchants.pop(merchant_id, None)

    def room(self, endpoint_id: str) -> int:
        """How many calls to the endpoint may be under way: fewer for a while after it asked for fewer."""
        until = self._slow.get(endpoint_id)
        if until is None:
            return ROOM
        if until > time.monotonic():
            return SLOWED_ROOM
        del self._slow[endpoint_id]
        return ROOM

    async def attempt(self, merchant_id: str, claimed: Claimed) -> Recorded:
        """Make one attempt and decide what follows from it; never raises but for cancellation."""
        at = claimed.clock.now(datetime.now(UTC))
        try:
            secret = self._secret(merchant_id, claimed)
        except (SealedSecretError, ValueError):
            # A secret sealed under another SANDBOX_SECRET_KEY; the attempt fails, and says so where people look.
            result = SendResult(None, {}, "", "the endpoint's secret cannot be opened with this SANDBOX_SECRET_KEY", 0)
            signature = ""
        else:
            sent = await self._post.post(merchant_id, claimed, at, secret)
            if sent.not_before is not None:
                return self._put_off(merchant_id, claimed, at, sent)
            signature, result = sent.signature, sent.result
        return self._decide(merchant_id, claimed, at, signature, result)

    def _put_off(self, merchant_id: str, claimed: Claimed, at: datetime, sent: Sent) -> Recorded:
        """An attempt that a fault put off: it is in the log, and takes no turn of the schedule."""
        assert sent.not_before is not None
        if claimed.clock.frozen_at is None:
            self._later(merchant_id, (sent.not_before - at).total_seconds())
        return Recorded(
            claimed=replace(claimed, scheduled=claimed.scheduled - 1),
            status="PENDING",
            next_attempt_at=sent.not_before,
            at=at,
            signature="",
            http_status=None,
            headers={},
            body="",
            error=sent.result.error,
            duration_ms=0,
            gone=False,
        )

    def _decide(self, merchant_id: str, claimed: Claimed, at: datetime, signature: str, result: SendResult) -> Recorded:
        outcome = judge(result.status) if result.error is None or result.status == 410 else "failed"
        DELIVERY_SECONDS.labels(outcome).observe(result.duration_ms / 1000)
        real = datetime.now(UTC)
        due: datetime | None = None
        status = "SUCCEEDED"
        if outcome != "succeeded":
            retry_after = parse_retry_after(result.response_headers.get("retry-after"), real)
            if slows_down(result.status):
                if len(self._slow) >= _SECRETS:
                    self._slow.clear()
                pause = retry_after.total_seconds() if retry_after is not None else _SLOW_SECONDS
                self._slow[claimed.endpoint_id] = time.monotonic() + min(pause, 60.0)
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
            attempt=claimed.scheduled + 1,
            outcome=outcome,
            status=result.status,
            error=result.error,
            ms=result.duration_ms,
        )
        return Recorded(
            claimed=claimed,
            status=status,
            next_attempt_at=due,
            at=at,
            signature=signature,
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


class _MerchantDeliveries:
    """One merchant's deliveries in this process: what is under way, and what waits to be recorded."""

    def __init__(self, deliverer: Deliverer, merchant_id: str) -> None:
        self.again = asyncio.Event()
        self._deliverer = deliverer
        self._merchant_id = merchant_id
        self._under_way: dict[str, int] = {}
        self._results: list[Recorded] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._recording: asyncio.Task[None] | None = None
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while True:
                await self.again.wait()
                self.again.clear()
                if not self._deliverer.stopping:
                    await self._claim()
                if not self._under_way and not self.again.is_set():
                    return
        except LOST as error:
            _log.warning("deliveries_lost", merchant_id=self._merchant_id, error=type(error).__name__)
        except Exception:
            # The sweep wakes the merchant again; what was claimed lapses with its lease.
            _log.exception("deliveries_failed", merchant_id=self._merchant_id)
        finally:
            # No await since the last look, so no wake is lost between it and here.
            self._deliverer.forget(self._merchant_id)
            if self._calls:
                await asyncio.gather(*self._calls, return_exceptions=True)

    async def _claim(self) -> None:
        room = {
            endpoint_id: max(0, self._deliverer.room(endpoint_id) - count) for endpoint_id, count in self._under_way.items()
        }
        for claimed in await claim_due(self._merchant_id, room, ROOM):
            self._under_way[claimed.endpoint_id] = self._under_way.get(claimed.endpoint_id, 0) + 1
            call = asyncio.create_task(self._call(claimed))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, claimed: Claimed) -> None:
        result = await self._deliverer.attempt(self._merchant_id, claimed)
        self._results.append(result)
        if self._recording is None:
            self._recording = asyncio.create_task(self._record())
        await asyncio.shield(self._recording)

    async def _record(self) -> None:
        """Write results, all that have come in while the last ones were being written. Bounded by what is under way."""
        try:
            delay = 0.05
            while self._results:
                batch, self._results = self._results[:_RECORD_AT_MOST], self._results[_RECORD_AT_MOST:]
                try:
                    await record_attempts(self._merchant_id, batch)
                except (*LOST, *RETRYABLE) as error:
                    _log.warning("record_failed", merchant_id=self._merchant_id, error=type(error).__name__)
                    self._results = batch + self._results
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 2.0)
                    continue
                except Exception:
                    # Their leases lapse and they are delivered again, which is allowed; losing the loop is not.
                    _log.exception("record_refused", merchant_id=self._merchant_id)
                delay = 0.05
                for result in batch:
                    endpoint_id = result.claimed.endpoint_id
                    self._under_way[endpoint_id] -= 1
                    if not self._under_way[endpoint_id]:
                        del self._under_way[endpoint_id]
                self.again.set()
        finally:
            self._recording = None
