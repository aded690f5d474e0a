"""Inject faults into webhook deliveries: dropped, duplicated, delayed, reordered or tampered with."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

import msgspec
import structlog

from sandbox.domain.clock import render
from sandbox.domain.trace import HEADER as TRACEPARENT_HEADER
from sandbox.http.fault import Fault, InjectedFault, damaged_body, note
from sandbox.http.faults.hits import first_hit
from sandbox.http.journal.journal import Entry, Journal, RedactionRules
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.webhooks.delivery.outbox import ClaimedDelivery, Exchange
from sandbox.webhooks.delivery.receiver_time import ReceiverTime, hosts_time
from sandbox.webhooks.delivery.signer import Signer
from sandbox.webhooks.outbound.sender import Sender, SendResult
from sandbox.webhooks.signing.standard_webhooks import ID_HEADER, NOW_HEADER, SIGNATURE_HEADER

_MAX_REORDER_DELAY: Final = timedelta(seconds=1)
_log = structlog.get_logger()


class FaultInjectingSender:
    """Signs and sends webhooks, applying the merchant's faults."""

    def __init__(self, sender: Sender, journal: Journal | None = None, receiver_time: ReceiverTime = hosts_time) -> None:
        """`journal` records each fault that hits."""
        self._sender = sender
        self._receiver_time = receiver_time
        self._journal = journal
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # By merchant too: endpoint ids are unique only within a merchant, and worlds with the same seed share them.
        self._held_back: dict[tuple[str, str], asyncio.Event] = {}

    async def send(self, merchant_id: str, claimed: ClaimedDelivery, at: datetime, signer: Signer) -> Exchange:
        """Sign a delivery with `signer` and attempt it once. `at` is in the merchant's time. Raises nothing."""
        try:
            hit = await self._find_hit(merchant_id, claimed, at) if claimed.endpoint.faults else None
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _log.warning("faults_unknown", merchant_id=merchant_id, error=repr(error)[:300])
            hit = None
        if hit is None:
            sent = await self._sign_and_send(merchant_id, claimed, claimed.body, at, signer)
        else:
            sent = msgspec.structs.replace(
                await self._send_with_fault(hit.fault, merchant_id, claimed, at, signer), fault=hit.fault
            )
            self._record_in_journal(merchant_id, claimed, at, hit, sent)
        held_back = self._held_back.get((merchant_id, claimed.endpoint_id))
        if held_back is not None and (hit is None or hit.fault.kind != "reorder"):
            held_back.set()
        return sent

    def _record_in_journal(
        self, merchant_id: str, claimed: ClaimedDelivery, at: datetime, hit: InjectedFault, sent: Exchange
    ) -> None:
        if self._journal is None:
            return
        result = sent.result
        entry = Entry(
            at=render(at),
            method="POST",
            path=claimed.endpoint.url,
            query=b"",
            status=result.status or 0,
            duration_ms=result.duration_ms,
            request_id=claimed.request_id,
            api_key_id=None,
            replayed=False,
            headers=[(b"webhook-id", claimed.event_id.encode()), (b"traceparent", claimed.traceparent.encode())],
            request_body=claimed.body,
            response_body=(result.error or result.response_body).encode(),
            fault=note(hit),
        )
        self._journal.record(merchant_id, entry, RedactionRules(is_outbound=True))

    async def _find_hit(self, merchant_id: str, claimed: ClaimedDelivery, at: datetime) -> InjectedFault | None:
        def matches(fault: Fault) -> bool:
            until = _postponed_until(fault, claimed)
            if until is not None and at >= until:
                # The fault has already postponed this delivery, and does so only once.
                return False
            if fault.kind == "reorder" and (merchant_id, claimed.endpoint_id) in self._held_back:
                # Another delivery is held back already. This delivery overtakes it.
                return False
            return fault.matches_delivery(claimed.event_type, claimed.endpoint_id)

        # Decide one delivery at a time, in the order of the claim, so that a fault with a limited count hits the same
        # deliveries in every run. The draw key names the delivery and attempt, so chance does not depend on timing either.
        async with self._locks.setdefault(merchant_id, asyncio.Lock()):
            return await first_hit(merchant_id, claimed.endpoint.faults, matches, f"{claimed.id}:{claimed.attempt}")

    async def _send_with_fault(
        self, fault: Fault, merchant_id: str, claimed: ClaimedDelivery, at: datetime, signer: Signer
    ) -> Exchange:
        if fault.kind == "drop":
            return Exchange("", None, SendResult(None, {}, "", "fault: dropped", 0, error_class="FAULT"))
        until = _postponed_until(fault, claimed)
        if until is not None:
            error = "fault: delayed" if fault.kind == "delay" else "fault: held back"
            return Exchange("", None, SendResult(None, {}, "", error, 0, error_class="FAULT"), until)
        age = timedelta(0)
        if fault.kind == "duplicate":
            await self._sign_and_send(merchant_id, claimed, claimed.body, at, signer)
        elif fault.kind == "reorder":
            await self._hold_back((merchant_id, claimed.endpoint_id))
        elif fault.kind == "stale_timestamp":
            age = timedelta(seconds=float(fault.parameters["seconds"]))
        elif fault.kind == "wrong_key":
            signer = signer.with_wrong_secrets()
        return await self._sign_and_send(merchant_id, claimed, damaged_body(fault.kind, claimed.body), at, signer, age)

    async def _sign_and_send(
        self,
        merchant_id: str,
        claimed: ClaimedDelivery,
        body: bytes,
        at: datetime,
        signer: Signer,
        age: timedelta = timedelta(0),
    ) -> Exchange:
        """Sign the delivery's own body, but send `body`. `age` makes the timestamp that much older."""
        # With the receiver's time, every library can verify the webhook, whatever the merchant's clock says.
        time = at if claimed.endpoint.signing_time == "merchant" else self._receiver_time(merchant_id)
        signed_at = int((time - age).timestamp())
        named = signer.sign(claimed.event_id, signed_at, claimed.body)
        of_dialect = None if signer.header == SIGNATURE_HEADER else dict(named)
        if claimed.is_translated:
            named.pop(ID_HEADER, None)
        else:
            named[NOW_HEADER] = render(at)
            named[TRACEPARENT_HEADER] = claimed.traceparent
        result = await self._sender.send(claimed.endpoint.url, body, named)
        return Exchange(named[signer.header], signed_at, result, request_headers=of_dialect)

    async def _hold_back(self, endpoint: tuple[str, str]) -> None:
        """Wait until this process has sent another delivery to the endpoint, one second at most."""
        overtaken = self._held_back[endpoint] = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(overtaken.wait(), _MAX_REORDER_DELAY.total_seconds())
        if self._held_back.get(endpoint) is overtaken:
            del self._held_back[endpoint]


def _postponed_until(fault: Fault, claimed: ClaimedDelivery) -> datetime | None:
    """Return the time, in the merchant's time, to which the fault postpones a delivery; None if it does not.

    With a frozen clock an endpoint gets one delivery at a time, so no delivery could overtake one that waits here. So a
    reorder fault postpones the delivery instead.
    """
    if fault.kind == "delay":
        wait = timedelta(milliseconds=float(fault.parameters["milliseconds"]))
    elif fault.kind == "reorder" and claimed.clock.frozen_at is not None:
        wait = _MAX_REORDER_DELAY
    else:
        return None
    # The delivery's id is a UUIDv7, so it begins with the time of its creation.
    return datetime.fromtimestamp(int(claimed.id.replace("-", "")[:12], 16) / 1000, UTC) + wait
