"""Render the webhooks of a dialect's endpoints from the events that are stored, so that a resend has the same bytes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec

from sandbox.domain.payout import Payout
from sandbox.payouts.history import HistoryEntry, read_histories
from sandbox.server.dialects.dialect import Dialect, PayoutEvent
from sandbox.webhooks.delivery.outbox import ClaimedDelivery, ClaimedEndpoint
from sandbox.webhooks.receiver_tests.events import WireFormat


class _Event(msgspec.Struct):
    timestamp: str
    data: Payout


_NOBODY: Final = "00000000-0000-7000-8000-000000000000"
"""The merchant of made-up events."""
_decode: Final = msgspec.json.Decoder(_Event).decode
_decode_wire: Final = msgspec.json.Decoder(dict[str, Any]).decode


class EventTranslator:
    """Translates claimed deliveries. Those of native endpoints cost one lookup."""

    def __init__(self, dialects: Mapping[str, Dialect]) -> None:
        self._encoders = {name: dialect.event for name, dialect in dialects.items() if dialect.event is not None}

    def applies_to(self, endpoint: ClaimedEndpoint) -> bool:
        """Return whether the endpoint gets the events of a dialect: it was made in one, or is signed as one."""
        return endpoint.wire is not None or endpoint.signing in self._encoders

    async def translate(self, merchant_id: str, claimed: ClaimedDelivery) -> ClaimedDelivery:
        """Return the delivery with the body of its endpoint's dialect. Raises CONNECTION_ERRORS."""
        endpoint = claimed.endpoint
        body = await self.rendered(
            merchant_id, endpoint.wire, endpoint.signing, claimed.event_id, claimed.event_type, claimed.body
        )
        return claimed if body is claimed.body else msgspec.structs.replace(claimed, body=body, is_translated=True)

    async def rendered(
        self, merchant_id: str, wire: str | None, signing: str, event_id: str, event_type: str, body: bytes
    ) -> bytes:
        """Return an event's body as the endpoint gets it, which has this `wire` as JSON. Raises CONNECTION_ERRORS."""
        known = {} if wire is None else _decode_wire(wire)
        encode = self._encoders.get(known.get("dialect", signing))
        if encode is None:
            return body
        event = _decode(body)
        return encode(await payout_event(merchant_id, event_id, event_type, event.timestamp, event.data, known))


def wire_formats(dialects: Mapping[str, Dialect]) -> dict[str, WireFormat]:
    """Return how receivers of each dialect are tested, whose signing has the dialect's name."""
    return {
        name: WireFormat(partial(_made_up, dialect.event), dialect.payout_id, dialect.event_types)
        for name, dialect in dialects.items()
        if dialect.event is not None
    }


def _made_up(encode: Callable[[PayoutEvent], bytes], event: Mapping[str, Any]) -> bytes:
    """Return the webhook of a made-up event, whose payout has had the usual states before."""
    payout = msgspec.convert(event["data"], Payout)
    statuses = dict.fromkeys(status for status in ("PENDING", event["previous_status"], payout.status) if status)
    last, at = UUID(event["id"]), event["timestamp"]
    ids = [str(UUID(int=last.int ^ steps)) for steps in reversed(range(len(statuses)))]
    history = [HistoryEntry(id_, status, at) for id_, status in zip(ids, statuses, strict=True)]
    return encode(PayoutEvent(_NOBODY, event["id"], event["type"], at, payout, history, {}))


async def payout_event(
    merchant_id: str, event_id: str, event_type: str, at: str, payout: Payout, wire: Mapping[str, Any]
) -> PayoutEvent:
    """Return a payout's event with the payout's changes up to it. Raises CONNECTION_ERRORS."""
    whole = (await read_histories(merchant_id, [payout.id]))[payout.id]
    places = [place for place, entry in enumerate(whole) if entry.event_id == event_id]
    # A sample that was sent to test an endpoint is not in the history of a payout.
    history = whole[: places[0] + 1] if places else [HistoryEntry(event_id, payout.status, at)]
    return PayoutEvent(merchant_id, event_id, event_type, at, payout, history, wire)
