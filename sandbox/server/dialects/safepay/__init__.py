"""Safepay Raast, as documented in September 2026: payouts in rupees, at `/raastwire`. See docs/safepay.md."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

from sandbox.server.dialects.dialect import Dialect, Services
from sandbox.server.dialects.safepay.accounts import AccountApi
from sandbox.server.dialects.safepay.declared import NAME, PREFIX, require_own_aggregator
from sandbox.server.dialects.safepay.errors import refuse
from sandbox.server.dialects.safepay.events import encode_event
from sandbox.server.dialects.safepay.ids import prefixed
from sandbox.server.dialects.safepay.keys import KeyApi
from sandbox.server.dialects.safepay.objects import aggregator_of
from sandbox.server.dialects.safepay.payments import PaymentApi
from sandbox.server.dialects.safepay.scenario import comparison
from sandbox.server.dialects.safepay.webhooks import WIRE_TYPES, WebhookApi


def _apis(services: Services) -> Sequence[object]:
    return AccountApi(services), PaymentApi(services), KeyApi(services), WebhookApi(services)


def _payment_of(merchant_id: str, payout_id: str) -> tuple[str, Mapping[str, str]]:
    return "get_payment", {"aggregator_id": aggregator_of(merchant_id), "payment_id": prefixed("pm", payout_id)}


DIALECT: Final = Dialect(
    name=NAME,
    title="Safepay Raast",
    prefix=PREFIX,
    key_header="X-SFPY-AGGREGATOR-SECRET-KEY",
    apis=_apis,
    guard=require_own_aggregator,
    refuse=refuse,
    event=encode_event,
    event_types=frozenset(name for name, wire_type in WIRE_TYPES.items() if wire_type),
    payout_id=partial(prefixed, "pm"),
    comparison=comparison(uuid4),
    load_script=Path(__file__).with_name("create.lua"),
    payment=_payment_of,
    remark="The amount is in rupees here, and in paisa in webhooks: a factor of 100. An endpoint with "
    "sandbox_event_amount rupees gets rupees.",
)
