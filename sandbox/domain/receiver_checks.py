"""The checks of a receiver test, and the requests that each one sends. Pure.

Texts for people (why a check matters, how to fix it) are in `receiver_tests/checks.toml`.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

from sandbox.domain.receiver_events import Forge, Outgoing, encode, spelled_unusually
from sandbox.domain.receiver_judges import (
    Observed,
    Verdict,
    judge_burst,
    judge_duplicate,
    judge_first,
    judge_future,
    judge_order,
    judge_time,
    must_accept,
    must_refuse,
)

BURST: Final = 50
"""How many webhooks `survives_burst` sends at once."""
LARGE_BODY: Final = 256 * 1024
_HOUR: Final = 3600


class Probing(Enum):
    """What a check reads from the probe, if there is one."""

    NOTHING = auto()
    BEFORE_AND_AFTER = auto()
    """A payout's state, before and after the last webhook."""
    ONCE_EACH = auto()
    """The state of each webhook's payout after the last answer, at once: none of them should have an effect."""
    UNTIL_APPLIED = auto()
    """The same, but wait until each webhook has had its effect."""


Build = Callable[[Forge], list[Outgoing]]
Judge = Callable[[Observed], Verdict]


class Check(NamedTuple):
    """One check. `build` returns its requests, which are sent in order, or at the same time if it is a burst."""

    name: str
    build: Build
    judge: Judge
    not_applicable: Callable[[Forge], str | None] = lambda forge: None
    """Returns why the check does not apply to the way of signing, or None."""
    is_burst: bool = False
    probing: Probing = Probing.NOTHING


def _valid(label: str) -> Build:
    return lambda forge: [forge.signed(label, forge.event(forge.new_id()))]


def _tampered(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    webhook = forge.signed("A webhook whose amount was changed after it was signed", event)
    return [msgspec.structs.replace(webhook, body=webhook.body.replace(b'"1500.00"', b'"9500.00"'))]


def _wrong_key(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    return [forge.signed("A webhook signed with another secret", event, secrets=[forge.other_secret])]


def _aged(label: str, age: int) -> Build:
    return lambda forge: [forge.signed(label, forge.event(forge.new_id()), age=age)]


def _missing_headers(forge: Forge) -> list[Outgoing]:
    requests = []
    for name in forge.required_headers:
        webhook = forge.signed("", forge.event(forge.new_id()))
        requests.append(forge.with_header(webhook, f"A webhook without {name}", name, None))
    if len(requests) > 1:
        webhook = forge.signed("", forge.event(forge.new_id()))
        kept = {name: value for name, value in webhook.headers.items() if name not in forge.required_headers}
        label = f"A webhook without any of {', '.join(forge.required_headers)}"
        requests.append(msgspec.structs.replace(webhook, label=label, headers=kept))
    return requests


def _malformed(forge: Forge) -> list[Outgoing]:
    def webhook() -> Outgoing:
        return forge.signed("", forge.event(forge.new_id()))

    return [
        forge.with_header(webhook(), "A webhook whose signature header is one word", forge.signature_header, "not-a-signature"),
        forge.with_signature(webhook(), "A webhook whose signature is not encoded properly", lambda _: "*not*encoded*"),
        forge.with_signature(webhook(), "A webhook with only the first 8 characters of its signature", lambda text: text[:8]),
        forge.with_signature(webhook(), "A webhook with an empty signature", lambda _: ""),
    ]


def _duplicate(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    # As a retry does, the second one has a later timestamp, and so another signature, but the same id.
    return [forge.signed("The webhook", event, age=1), forge.signed("The same webhook, sent again,", event)]


def _out_of_order(forge: Forge) -> list[Outgoing]:
    payout_id = forge.new_id()
    older, newer = forge.event(payout_id, 2), forge.event(payout_id, 3)
    return [
        forge.signed("The newer event (payout.succeeded, version 3)", newer),
        forge.signed("The older event (payout.processing, version 2), which arrived last,", older),
    ]


def _rotation(forge: Forge) -> list[Outgoing]:
    return [forge.rotated(forge.event(forge.new_id()), wrong_first=first) for first in (True, False)]


def _unknown_event(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    return [forge.signed("A webhook of a type that does not exist yet", {**event, "type": "payout.new_in_the_future"})]


def _unknown_fields(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    data = {**event["data"], "new_field": "new", "new_object": {"new": True}}
    return [forge.signed("A webhook with new fields", {**event, "data": data, "new_field": 1})]


def _raw_body(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    label = "A webhook whose JSON has unusual spaces, escapes and order of members"
    return [forge.signed(label, event, body=spelled_unusually(event))]


def _large_body(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    event["data"]["metadata"] = {"note": ""}
    event["data"]["metadata"]["note"] = "x" * (LARGE_BODY - len(encode(event)))
    return [forge.signed(f"A webhook of {LARGE_BODY // 1024} KiB", event)]


def _burst(forge: Forge) -> list[Outgoing]:
    return [forge.signed("One of the webhooks", forge.event(forge.new_id())) for _ in range(BURST)]


def _unsigned(forge: Forge) -> list[Outgoing]:
    return [Outgoing("A GET request", {}, b"", "GET"), Outgoing("An empty POST without a signature", {}, b"")]


def _no_time(forge: Forge) -> str | None:
    return None if forge.signs_time() else "GitHub's way of signing has no timestamp, so this check does not apply."


def _one_signature(forge: Forge) -> str | None:
    return None if forge.has_rotation() else "GitHub sends a single signature, so this check does not apply."


CHECKS: Final = (
    Check("accepts_valid", _valid("A valid webhook"), judge_first),
    Check("refuses_tampered_body", _tampered, must_refuse, probing=Probing.ONCE_EACH),
    Check("refuses_wrong_key", _wrong_key, must_refuse, probing=Probing.ONCE_EACH),
    Check(
        "refuses_stale_timestamp",
        _aged("A webhook signed an hour ago", _HOUR),
        must_refuse,
        _no_time,
        probing=Probing.ONCE_EACH,
    ),
    Check(
        "refuses_future_timestamp",
        _aged("A webhook dated an hour ahead", -_HOUR),
        judge_future,
        _no_time,
        probing=Probing.ONCE_EACH,
    ),
    Check("refuses_missing_headers", _missing_headers, must_refuse, probing=Probing.ONCE_EACH),
    Check("refuses_malformed_signature", _malformed, must_refuse, probing=Probing.ONCE_EACH),
    Check("handles_duplicate", _duplicate, judge_duplicate, probing=Probing.BEFORE_AND_AFTER),
    Check("handles_out_of_order", _out_of_order, judge_order, probing=Probing.BEFORE_AND_AFTER),
    Check("accepts_rotation", _rotation, must_accept, _one_signature),
    Check("accepts_unknown_event", _unknown_event, must_accept),
    Check("accepts_unknown_fields", _unknown_fields, must_accept),
    Check("keeps_raw_body", _raw_body, must_accept),
    Check("accepts_large_body", _large_body, must_accept),
    Check("survives_burst", _burst, judge_burst, is_burst=True, probing=Probing.UNTIL_APPLIED),
    Check("answers_in_time", _valid("A valid webhook"), judge_time),
    Check("refuses_unsigned", _unsigned, must_refuse),
)
"""All checks, in the order of a report."""
NAMES: Final = tuple(check.name for check in CHECKS)
