"""Webhooks as Safepay writes them."""

from typing import Final

import msgspec

from sandbox.payouts.directory.loader import load_directory
from sandbox.server.dialects.dialect import PayoutEvent
from sandbox.server.dialects.safepay.ids import derived, prefixed
from sandbox.server.dialects.safepay.mapping import MAPPING
from sandbox.server.dialects.safepay.objects import BankAccount, Payment, aggregator_of, paisa, payment

_encode: Final = msgspec.json.Encoder().encode
_EVENT_OF_STATUS: Final = {state.status: state.event for state in MAPPING.states.values() if state.event}
"""For a native endpoint that is only signed as Safepay's, which also gets the events that Safepay has none for."""


class EventBankAccount(BankAccount, kw_only=True):
    """A bank account of an event, which has more members."""

    depositor_id: None = None
    owner: None = None
    kind: None = None
    version: None = None


class EventPayment(Payment, kw_only=True):
    """The payment of an event."""

    payment_authorization: None = None
    aggregator: None = None
    iso_order_reference: str = ""


class Subject(msgspec.Struct):
    """What the event is about."""

    payment: EventPayment


class WireEvent(msgspec.Struct, kw_only=True):
    """An event. `identifier` is the token of the payment's last log."""

    source: str = "SAFEPAY_RAAST"
    kind: str = "PAYMENT_EVENT"
    code: str
    version: str = "V1_0_0"
    timestamp: str
    identifier: str
    partner_id: str
    aggregator_id: str
    subject: Subject
    destinations: tuple[()] = ()
    raast_channel: str = ""
    webhook_event_type: str


def event_type(status: str) -> str:
    """Return the event type on entering a native state; empty if there is none."""
    return MAPPING.states[status].event


def encode_event(event: PayoutEvent) -> bytes:
    """Return the body of an event's webhook. The amount is in paisa, unless the endpoint's `event_amount` is `rupees`.

    A native sample that was sent to test the endpoint has no history: its payment has no logs but the event itself.
    """
    shown = payment(load_directory(), event.merchant_id, event.payout, event.history)
    if event.wire.get("event_amount") != "rupees":
        shown.amount = paisa(event.payout.amount)
    shown.expires_at = None
    for party in shown.payment_parties:
        party.bank_account = EventBankAccount(**msgspec.structs.asdict(party.bank_account))
    name = event_type(event.payout.status) or _EVENT_OF_STATUS[shown.status]
    return _encode(
        WireEvent(
            code=f"PAYMENT_{name.rpartition('.')[2].upper()}",
            timestamp=event.at,
            identifier=prefixed("txnlog", event.event_id),
            partner_id=derived("partner", event.merchant_id),
            aggregator_id=aggregator_of(event.merchant_id),
            subject=Subject(EventPayment(**msgspec.structs.asdict(shown))),
            webhook_event_type=name,
        )
    )
