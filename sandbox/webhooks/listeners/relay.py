"""Hand a relayed endpoint's due deliveries to its listener, ready to send, and record the results that it reports.

Claims, signatures, faults, the retry schedule and the records are those of any endpoint. Only the HTTP call is the listener's.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from math import ceil
from time import monotonic
from typing import Final, Literal

import msgspec

from sandbox.domain.clock import render
from sandbox.domain.errors import Problem
from sandbox.http.journal.journal import Journal
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.rows import as_json
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.live_feed import Note
from sandbox.infrastructure.live_subscriber import LiveSubscriber
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.tasks import end_tasks
from sandbox.unit_of_work.transaction import with_retries, write_rows
from sandbox.webhooks.delivery.attempt import AttemptRunner, Translator
from sandbox.webhooks.delivery.outbox import (
    LEASE,
    AttemptResult,
    ClaimedDelivery,
    Exchange,
    record_in_transaction,
    release_claims,
)
from sandbox.webhooks.delivery.receiver_time import ReceiverTime, hosts_time
from sandbox.webhooks.listeners.claims import claim_now
from sandbox.webhooks.listeners.leases import Lease, open_lease, seal_lease
from sandbox.webhooks.listeners.requests import ResultBody
from sandbox.webhooks.outbound.sender import BODY_LIMIT, DEFAULT_HEADERS, SendResult, stored_headers
from sandbox.webhooks.outbound.timings import Timings

MAX_WAITING: Final = 32
"""Maximum number of waiting claims of one merchant in one process."""
MAX_WAITING_IN_PROCESS: Final = 512
_GATHER_SECONDS: Final = 0.01
"""How long a waiting claim lets further events gather after the first one."""

_SQL: Final = read_statements(__name__)
_NOT_SENT: Final = SendResult(None, {}, "", None, 0)

ReportOutcome = Literal["recorded", "late", "repeated", "unknown"]


class RelayedDelivery(msgspec.Struct, kw_only=True):
    """A claimed delivery, ready to send."""

    delivery_id: str
    event_id: str
    event_type: str
    attempt: int
    manual: bool
    """Whether someone asked for this attempt by a resend."""
    headers: dict[str, str]
    body: str
    copies: int
    """How often to send it: 2 if a fault duplicates it."""
    delay_ms: int
    """How long to wait before sending it, because of the endpoint's rate limit."""
    lease: str
    """Hand it back with the result."""


class Claimed(msgspec.Struct, kw_only=True):
    """The claimed deliveries, the earliest first. Do not start to send one after its lease has ended."""

    data: list[RelayedDelivery]
    lease_ends_after_ms: int
    """When the leases end, counted from the moment at which the claim was sent."""


class Reported(msgspec.Struct, kw_only=True):
    """What became of a reported result.

    `recorded`: the delivery has a new status. `late`: its lease had passed to another attempt, so the result is only logged.
    `repeated`: it was recorded before. `unknown`: there is no such delivery any more, or the lease is not this listener's.
    """

    outcome: ReportOutcome
    delivery_id: str | None
    event_id: str | None
    event_type: str | None
    attempt: int | None
    at: str | None
    delivery_status: str | None
    """The status after this attempt: SUCCEEDED, FAILED or PENDING."""
    next_attempt_at: str | None


class ReportedResults(msgspec.Struct):
    """What became of each result, in the order of the request."""

    data: list[Reported]


class _Copy(msgspec.Struct):
    body: bytes
    headers: Mapping[str, str]


_copies: ContextVar[list[_Copy]] = ContextVar("copies")


class _CapturingSender:
    """Keeps what would be sent, for the listener to send."""

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> SendResult:
        """Keep one request of the current delivery."""
        _copies.get().append(_Copy(body, headers))
        return _NOT_SENT


class Relay:
    """Serves the listeners of all merchants."""

    def __init__(
        self,
        box: SecretBox,
        subscriber: LiveSubscriber,
        on_recorded: Callable[[str, Sequence[Note]], None],
        journal: Journal | None = None,
        receiver_time: ReceiverTime = hosts_time,
        translator: Translator | None = None,
    ) -> None:
        self._box = box
        self._subscriber = subscriber
        self._attempts = AttemptRunner(
            _CapturingSender(),
            box,
            on_recorded=on_recorded,
            journal=journal,
            receiver_time=receiver_time,
            translator=translator,
        )
        self._waiting: Counter[str] = Counter()

    async def claim(
        self, merchant_id: str, endpoint_id: str, limit: int, seconds: float, disconnected: Callable[[], Awaitable[object]]
    ) -> Claimed:
        """Claim up to `limit` due deliveries. If none is due, wait for one up to `seconds`.

        `disconnected` returns when the client has gone; then nothing is claimed. Raises NOT_FOUND if there is no such listener,
        INVALID_STATE if its endpoint is disabled, RATE_LIMITED if too many claims wait already, and UNAVAILABLE.
        """
        started = monotonic()
        claimed, _ = await claim_now(merchant_id, endpoint_id, limit)
        claimed_at = started
        if not claimed and seconds > 0:
            claimed, claimed_at = await self._wait(merchant_id, endpoint_id, limit, started + seconds, disconnected)
        data = await self._prepare(merchant_id, claimed)
        ends_after = LEASE + timedelta(seconds=claimed_at - started)
        return Claimed(data=data, lease_ends_after_ms=ends_after // timedelta(milliseconds=1))

    async def _wait(
        self,
        merchant_id: str,
        endpoint_id: str,
        limit: int,
        deadline: float,
        disconnected: Callable[[], Awaitable[object]],
    ) -> tuple[Sequence[ClaimedDelivery], float]:
        """Claim when something is due. Returns the deliveries, and a time of the monotonic clock just before the claim."""
        wake = asyncio.Event()
        gone = asyncio.ensure_future(disconnected())
        gone.add_done_callback(lambda _: wake.set())
        try:
            with self._slot(merchant_id):
                # Subscribe before reading: an event between the two still wakes the claim.
                async with self._subscriber.subscribe(merchant_id, lambda _: wake.set()):
                    while True:
                        started = monotonic()
                        claimed, due_in = await claim_now(merchant_id, endpoint_id, limit)
                        if gone.done():
                            # Nobody would send them. Without this, the next listener waits until the leases have ended.
                            if claimed:
                                await release_claims(merchant_id, claimed)
                            return [], started
                        left = 0.0 if self._subscriber.closing else deadline - monotonic()
                        if claimed or left <= 0:
                            return claimed, started
                        try:
                            async with asyncio.timeout(min(left, due_in)):
                                await wake.wait()
                            await asyncio.sleep(_GATHER_SECONDS)
                        except TimeoutError:
                            pass
                        wake.clear()
        finally:
            await end_tasks(gone)

    @contextmanager
    def _slot(self, merchant_id: str) -> Iterator[None]:
        if self._waiting[merchant_id] >= MAX_WAITING or self._waiting.total() >= MAX_WAITING_IN_PROCESS:
            raise Problem(
                "RATE_LIMITED",
                f"A merchant can have {MAX_WAITING} waiting claims at a time; stop a listener first.",
                headers={"Retry-After": "1"},
            )
        self._waiting[merchant_id] += 1
        try:
            yield
        finally:
            self._waiting[merchant_id] -= 1
            if not self._waiting[merchant_id]:
                del self._waiting[merchant_id]

    async def _prepare(self, merchant_id: str, claimed: Sequence[ClaimedDelivery]) -> list[RelayedDelivery]:
        """Sign the deliveries. Record those that are not to be sent, because of a fault or an unreadable secret."""
        ready: list[RelayedDelivery] = []
        ended: list[AttemptResult] = []

        async def sign(delivery: ClaimedDelivery) -> None:
            copies: list[_Copy] = []
            _copies.set(copies)  # each task has its own context
            at, signed = await self._attempts.send(merchant_id, delivery)
            if not copies or signed.not_before is not None:
                ended.append(self._attempts.decide(merchant_id, delivery, at, signed))
                return
            ready.append(self._ready(merchant_id, delivery, copies, seal_lease(self._box, merchant_id, delivery, at, signed)))

        # All at the same time, because a fault can hold one back until another has overtaken it.
        await asyncio.gather(*(asyncio.create_task(sign(delivery)) for delivery in claimed))
        if ended:
            await self._attempts.record(merchant_id, ended)
        return ready

    def _ready(self, merchant_id: str, delivery: ClaimedDelivery, copies: Sequence[_Copy], lease: str) -> RelayedDelivery:
        starts_at = datetime.now(UTC) if delivery.slot is None else delivery.slot.starts_at
        return RelayedDelivery(
            delivery_id=delivery.id,
            event_id=delivery.event_id,
            event_type=delivery.event_type,
            attempt=delivery.attempt,
            manual=delivery.manual,
            headers={**DEFAULT_HEADERS, **copies[-1].headers},
            body=copies[-1].body.decode(errors="replace"),
            copies=len(copies),
            delay_ms=max(0, ceil((starts_at - datetime.now(UTC)).total_seconds() * 1000)),
            lease=lease,
        )

    async def report(self, merchant_id: str, endpoint_id: str, results: Sequence[ResultBody]) -> ReportedResults:
        """Record the results of attempts. A repeated report records nothing twice. Raises UNAVAILABLE."""
        leases = [open_lease(self._box, merchant_id, endpoint_id, result.lease) for result in results]
        attempts = {
            place: self._attempts.decide(merchant_id, lease.claimed, lease.at, _exchange(lease, result))
            for place, (lease, result) in enumerate(zip(leases, results, strict=True))
            if lease is not None
        }
        outcomes: dict[int, ReportOutcome] = {}

        async def record(conn: Connection) -> None:
            outcomes.clear()
            # Lock in the same order as other records do. Otherwise the two could deadlock.
            places = sorted(attempts, key=lambda place: attempts[place].claimed.id)
            rows = as_json(_identity(place, attempts[place]) for place in places)
            seen: set[tuple[str, datetime]] = set()
            for state in await conn.fetch(_SQL["reported"], merchant_id, rows):
                claimed = attempts[state["place"]].claimed
                is_repeated = (claimed.id, claimed.lease) in seen or (not state["holds"] and state["is_repeated"])
                seen.add((claimed.id, claimed.lease))
                outcomes[state["place"]] = "repeated" if is_repeated else "recorded" if state["holds"] else "late"
            new = [attempts[place] for place, outcome in outcomes.items() if outcome != "repeated"]
            if new:
                await record_in_transaction(conn, merchant_id, new)

        if attempts:
            await with_retries(lambda: write_rows(merchant_id, record), retry_safe=True)
        self._attempts.publish(merchant_id, [attempts[place] for place, outcome in outcomes.items() if outcome != "repeated"])
        return ReportedResults(
            [_reported(outcomes.get(place, "unknown"), attempts.get(place)) for place in range(len(results))]
        )


def _identity(place: int, attempt: AttemptResult) -> dict[str, object]:
    return {
        "place": place,
        "id": attempt.claimed.id,
        "lease": attempt.claimed.lease,
        "attempt": attempt.claimed.attempt,
        "at": attempt.at,
        "signed_at": attempt.exchange.signed_at,
    }


def _exchange(lease: Lease, result: ResultBody) -> Exchange:
    status, error, error_class = result.status, result.error, result.error_class
    if status is not None and error is None and not 200 <= status <= 299:
        error_class = error_class or "HTTP_STATUS"
        if 300 <= status <= 399:
            error, error_class = "redirect not followed", "REDIRECT"
    phases = {name: getattr(result.timings, name) for name in result.timings.__struct_fields__}
    sent = SendResult(
        status=status,
        response_headers=stored_headers(result.headers),
        response_body=result.body.replace("\0", "\ufffd").encode()[:BODY_LIMIT].decode(errors="ignore"),
        error=error,
        duration_ms=result.duration_ms,
        timings=Timings(**phases, total_ms=result.duration_ms),
        error_class=error_class or (None if error is None else "INTERNAL"),
    )
    return msgspec.structs.replace(lease.signed, result=sent)


def _reported(outcome: ReportOutcome, attempt: AttemptResult | None) -> Reported:
    if attempt is None:
        return Reported(
            outcome="unknown", delivery_id=None, event_id=None, event_type=None, attempt=None, at=None, delivery_status=None,
            next_attempt_at=None,
        )  # fmt: skip
    return Reported(
        outcome=outcome,
        delivery_id=attempt.claimed.id,
        event_id=attempt.claimed.event_id,
        event_type=attempt.claimed.event_type,
        attempt=attempt.claimed.attempt,
        at=render(attempt.at),
        delivery_status=attempt.status,
        next_attempt_at=None if attempt.next_attempt_at is None else render(attempt.next_attempt_at),
    )
