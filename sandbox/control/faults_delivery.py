"""Faults of deliveries: webhooks that are lost, doubled, late, out of order, or not what was signed."""

import asyncio
import contextlib
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

import structlog

from sandbox.clock import render
from sandbox.control.faults import Fault, Hit, note
from sandbox.control.faults_store import first_hit
from sandbox.control.journal import Entry, Journal
from sandbox.db.engine import LOST, RETRYABLE
from sandbox.webhooks.outbox import Claimed
from sandbox.webhooks.sender import SendResult, WebhookSender
from sandbox.webhooks.signing import headers

_HOLD_SECONDS: Final = 1.0
_TYPE: Final = re.compile(rb'\{"type":"([a-z_.]+)"')
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sent:
    """What an attempt signed, what came of it, and, if it was put off, until when in the merchant's time."""

    signature: str
    result: SendResult
    not_before: datetime | None = None


class FaultyPost:
    """Signs and posts webhooks, with what the merchant's faults make of them."""

    def __init__(self, sender: WebhookSender, journal: Journal | None = None) -> None:
        """`journal` is told of each fault that hits."""
        self._sender = sender
        self._journal = journal
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._held: dict[str, asyncio.Event] = {}

    async def post(self, merchant_id: str, claimed: Claimed, at: datetime, secret: bytes) -> Sent:
        """Sign a delivery with `secret` and make its one attempt, `at` in the merchant's time. Never raises."""
        try:
            hit = await self._met(merchant_id, claimed, at) if claimed.faults else None
        except (*LOST, *RETRYABLE) as error:
            _log.warning("faults_unknown", merchant_id=merchant_id, error=type(error).__name__)
            hit = None
        if hit is None:
            sent = await self._sign_and_send(claimed, claimed.body, claimed.body, at, secret)
        else:
            sent = await self._faulty(hit.fault, claimed, at, secret)
            self._note(merchant_id, claimed, at, hit, sent)
        if claimed.endpoint_id in self._held and (hit is None or hit.fault.kind != "reorder"):
            self._held[claimed.endpoint_id].set()
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
        self._journal.note(merchant_id, entry)

    async def _met(self, merchant_id: str, claimed: Claimed, at: datetime) -> Hit | None:
        found = _TYPE.match(claimed.body)
        event_type = found[1].decode() if found else ""

        def meets(fault: Fault) -> bool:
            if fault.kind == "delay" and at >= _made(claimed) + timedelta(milliseconds=fault.parameters["milliseconds"]):
                # It is late enough; a delivery is put off by a fault once.
                return False
            if fault.kind == "reorder" and claimed.endpoint_id in self._held:
                # One is held back already, and this is the one that goes out before it.
                return False
            return fault.meets_delivery(event_type, claimed.endpoint_id)

        # Deliveries that were claimed together are decided on one after the other, in their order, so that a fault that may
        # hit only so often hits the same ones each time; and chance goes by what is delivered, not by who comes first.
        async with self._turns.setdefault(merchant_id, asyncio.Lock()):
            return await first_hit(merchant_id, claimed.faults, meets, f"{claimed.id}:{claimed.attempt}")

    async def _faulty(self, fault: Fault, claimed: Claimed, at: datetime, secret: bytes) -> Sent:
        body = claimed.body
        if fault.kind == "drop":
            return Sent("", SendResult(None, {}, "", "fault: dropped", 0))
        if fault.kind == "delay":
            until = _made(claimed) + timedelta(milliseconds=fault.parameters["milliseconds"])
            return Sent("", SendResult(None, {}, "", "fault: delayed", 0), until)
        if fault.kind == "duplicate":
            await self._sign_and_send(claimed, body, body, at, secret)
        elif fault.kind == "reorder":
            await self._hold(claimed.endpoint_id)
        elif fault.kind == "stale_timestamp":
            at -= timedelta(seconds=fault.parameters["seconds"])
        elif fault.kind == "wrong_key":
            secret = hashlib.sha256(secret).digest()
        elif fault.kind == "tampered_body":
            body = body[:-1] + b',"tampered":true}'
        elif fault.kind == "truncated_body":
            body = body[: len(body) // 2]
        return await self._sign_and_send(claimed, claimed.body, body, at, secret)

    async def _sign_and_send(self, claimed: Claimed, signed: bytes, body: bytes, at: datetime, secret: bytes) -> Sent:
        named = headers(claimed.event_id, int(at.timestamp()), signed, (secret,))
        return Sent(named["webhook-signature"], await self._sender.send(claimed.url, body, named))

    async def _hold(self, endpoint_id: str) -> None:
        """Wait until another delivery to the endpoint went out in this process, for a second at most."""
        passed = self._held[endpoint_id] = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(passed.wait(), _HOLD_SECONDS)
        if self._held.get(endpoint_id) is passed:
            del self._held[endpoint_id]


def _made(claimed: Claimed) -> datetime:
    """When a delivery was made, in the merchant's time: its id, a UUIDv7, begins with that."""
    return datetime.fromtimestamp(int(claimed.id.replace("-", "")[:12], 16) / 1000, UTC)
