"""Faults of deliveries: webhooks that are lost, doubled, late, out of order, or not what was signed."""

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

import structlog

from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.domain.clock import render
from sandbox.domain.fault import Fault, Hit, damaged_body, note
from sandbox.domain.webhook_signing import NOW_HEADER, SIGNATURE_HEADER, headers
from sandbox.faults.store import first_hit
from sandbox.journal.journal import Entry, Journal, Rules
from sandbox.webhooks.outbox import Claimed
from sandbox.webhooks.sender import SendResult, WebhookSender

_HOLD: Final = timedelta(seconds=1)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of an attempt.

    `signature` and `signed_at`, the webhook-timestamp in Unix seconds, are as sent: empty and None if nothing was. `fault` is
    what hit it. If that put it off, `not_before` says until when in the merchant's time.
    """

    signature: str
    signed_at: int | None
    result: SendResult
    not_before: datetime | None = None
    fault: Fault | None = None


class FaultyPost:
    """Signs and posts webhooks, with what the merchant's faults make of them."""

    def __init__(self, sender: WebhookSender, journal: Journal | None = None) -> None:
        """`journal` is told of each fault that hits."""
        self._sender = sender
        self._journal = journal
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Endpoints' ids are unique within their merchant only: worlds of one seed have the same.
        self._held: dict[tuple[str, str], asyncio.Event] = {}

    async def post(self, merchant_id: str, claimed: Claimed, at: datetime, secret: bytes) -> Sent:
        """Sign a delivery with `secret` and make its one attempt, `at` in the merchant's time. Never raises."""
        try:
            hit = await self._met(merchant_id, claimed, at) if claimed.faults else None
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _log.warning("faults_unknown", merchant_id=merchant_id, error=repr(error)[:300])
            hit = None
        if hit is None:
            sent = await self._sign_and_send(claimed, claimed.body, at, secret)
        else:
            sent = replace(await self._faulty(hit.fault, merchant_id, claimed, at, secret), fault=hit.fault)
            self._note(merchant_id, claimed, at, hit, sent)
        held = self._held.get((merchant_id, claimed.endpoint_id))
        if held is not None and (hit is None or hit.fault.kind != "reorder"):
            held.set()
        return sent

    def _note(self, merchant_id: str, claimed: Claimed, at: datetime, hit: Hit, sent: Sent) -> None:
        if self._journal is None:
            return
        result = sent.result
        entry = Entry(
            at=render(at),
            method="POST",
            path=claimed.url,
            query=b"",
            status=result.status or 0,
            duration_ms=result.duration_ms,
            request_id=claimed.request_id,
            api_key_id=None,
            replayed=False,
            headers=[(b"webhook-id", claimed.event_id.encode())],
            request_body=claimed.body,
            response_body=(result.error or result.response_body).encode(),
            fault=note(hit),
        )
        self._journal.note(merchant_id, entry, Rules(is_ours=True))

    async def _met(self, merchant_id: str, claimed: Claimed, at: datetime) -> Hit | None:
        def meets(fault: Fault) -> bool:
            until = _put_off_until(fault, claimed)
            if until is not None and at >= until:
                # It is late enough; a delivery is put off by a fault once.
                return False
            if fault.kind == "reorder" and (merchant_id, claimed.endpoint_id) in self._held:
                # One is held back already, and this is the one that goes out before it.
                return False
            return fault.matches_delivery(claimed.event_type, claimed.endpoint_id)

        # Deliveries that were claimed together are decided on one after the other, in their order, so that a fault that may
        # hit only so often hits the same ones each time; and chance goes by what is delivered, not by who comes first.
        async with self._turns.setdefault(merchant_id, asyncio.Lock()):
            return await first_hit(merchant_id, claimed.faults, meets, f"{claimed.id}:{claimed.attempt}")

    async def _faulty(self, fault: Fault, merchant_id: str, claimed: Claimed, at: datetime, secret: bytes) -> Sent:
        if fault.kind == "drop":
            return Sent("", None, SendResult(None, {}, "", "fault: dropped", 0))
        until = _put_off_until(fault, claimed)
        if until is not None:
            said = "fault: delayed" if fault.kind == "delay" else "fault: held back"
            return Sent("", None, SendResult(None, {}, "", said, 0), until)
        age = timedelta(0)
        if fault.kind == "duplicate":
            await self._sign_and_send(claimed, claimed.body, at, secret)
        elif fault.kind == "reorder":
            await self._hold((merchant_id, claimed.endpoint_id))
        elif fault.kind == "stale_timestamp":
            age = timedelta(seconds=fault.parameters["seconds"])
        elif fault.kind == "wrong_key":
            secret = hashlib.sha256(secret).digest()
        return await self._sign_and_send(claimed, damaged_body(fault.kind, claimed.body), at, secret, age)

    async def _sign_and_send(
        self, claimed: Claimed, body: bytes, at: datetime, secret: bytes, age: timedelta = timedelta(0)
    ) -> Sent:
        """Sign the delivery's own body, and send `body`. `age` is how much too old the timestamp is."""
        # By the host's time every library verifies it, wherever the merchant's clock stands.
        signed_at = int(((at if claimed.signing_time == "merchant" else datetime.now(UTC)) - age).timestamp())
        named = headers(claimed.event_id, signed_at, claimed.body, (secret,))
        named[NOW_HEADER] = render(at)
        return Sent(named[SIGNATURE_HEADER], signed_at, await self._sender.send(claimed.url, body, named))

    async def _hold(self, endpoint: tuple[str, str]) -> None:
        """Wait until another delivery to the endpoint went out in this process, for a second at most."""
        passed = self._held[endpoint] = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(passed.wait(), _HOLD.total_seconds())
        if self._held.get(endpoint) is passed:
            del self._held[endpoint]


def _put_off_until(fault: Fault, claimed: Claimed) -> datetime | None:
    """Until when, in the merchant's time, the fault puts a delivery off; None if it does not.

    In a frozen world an endpoint gets one delivery at a time, so none can overtake another that is held back here.
    """
    if fault.kind == "delay":
        wait = timedelta(milliseconds=fault.parameters["milliseconds"])
    elif fault.kind == "reorder" and claimed.clock.frozen_at is not None:
        wait = _HOLD
    else:
        return None
    # When it was made: its id, a UUIDv7, begins with that.
    return datetime.fromtimestamp(int(claimed.id.replace("-", "")[:12], 16) / 1000, UTC) + wait
