"""The checks of a receiver test, and the requests that each one sends. Pure.

Texts for people (why a check matters, how to fix it) are in `webhooks/receiver_tests/checks.toml`.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

from sandbox.domain.enumerations import EventType
from sandbox.webhooks.receiver_tests.effects import (
    SECOND_FAILURE,
    judge_burst,
    judge_changes,
    judge_copies,
    judge_duplicate,
    judge_order,
    must_act,
)
from sandbox.webhooks.receiver_tests.events import Forge, Json, Outgoing, spelled_unusually
from sandbox.webhooks.receiver_tests.judges import (
    Observed,
    Verdict,
    judge_first,
    judge_future,
    judge_large,
    judge_time,
    must_accept,
    must_not_accept,
    must_refuse,
)

BURST: Final = 50
"""How many webhooks `survives_burst` sends at the same time."""
COPIES: Final = 8
"""How many times a webhook of `handles_concurrent_duplicates` is sent at the same time."""
COPIED: Final = 6
"""How many webhooks it sends in this way, one after the other: a receiver may pass a single race by luck."""
LARGEST_BODY: Final = 48 * 1024
"""More than the largest event: 20 entries of metadata, of 564 characters of 4 bytes each, make 44 KiB."""
LARGE_BODY: Final = 256 * 1024
_HOUR: Final = 3600
_SIX_MINUTES: Final = 360
_LATE: Final = 3 * 24 * 3600
_DEBUG_HEADERS: Final = (
    *("debug", "x-debug", "x-test", "x-test-mode", "x-skip-verification", "x-skip-signature", "x-bypass", "x-no-verify"),
    *("x-insecure", "x-internal", "x-sandbox", "x-webhook-test"),
)
_TEXTS: Final = (
    ("Urdu", "عائشہ خان", "ادائیگی نمبر ۱۰۴۲"),
    ("emoji", "Ayesha Khan", "paid 🎉 👩🏽‍💻"),
    ("accents and typographic quotes", "José Núñez-Müller", "“café” – naïve"),
)
_NOT_TIMES: Final = (
    ("a word", "yesterday"),
    ("400 digits", "9" * 400),
    ("an exponent", "1e400"),
    ("NaN", "NaN"),
    ("text in RFC 3339", "2026-01-31T12:00:00Z"),
)


class Probing(Enum):
    """The readings of the probe that a check needs, if there is a probe."""

    NOTHING = auto()
    IN_STEPS = auto()
    """Several states of one payout: one after each of the check's `steps`."""
    COPIED = auto()
    """The state of each webhook's payout, after COPIES of it were sent at the same time."""
    ONCE_EACH = auto()
    """The state of each webhook's payout, read immediately after the last answer. No webhook should have an effect."""
    UNTIL_APPLIED = auto()
    """The state of each webhook's payout, read when each webhook has had its effect."""


Build = Callable[[Forge], list[Outgoing]]
Judge = Callable[[Observed], Verdict]


class Step(NamedTuple):
    """The number of webhooks that are sent before a reading of the probe, and how many of them should have an effect."""

    webhooks: int
    effects: int


_ONE_IN_VAIN: Final = (Step(1, 1), Step(1, 0))
_CHANGES: Final = (Step(3, 3), Step(2, 2), Step(1, 1), Step(3, 3))


class Check(NamedTuple):
    """One check. `build` returns its requests, which are sent in order, or at the same time if it is a burst."""

    name: str
    build: Build
    judge: Judge
    not_applicable: Callable[[Forge], str | None] = lambda forge: None
    """Returns why the check does not apply to the way of signing, or None."""
    is_burst: bool = False
    probing: Probing = Probing.NOTHING
    steps: tuple[Step, ...] = ()
    """For IN_STEPS: the webhooks to send before each reading of the probe."""


def _valid(label: str) -> Build:
    return lambda forge: [forge.signed(label, forge.event(forge.new_id()))]


def _tampered(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    webhook = forge.signed("A webhook whose amount was changed after it was signed", event)
    return [msgspec.structs.replace(webhook, body=webhook.body.replace(b'"1500', b'"9500'))]


def _wrong_key(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    other = forge.signed("A webhook signed with another secret", event, secrets=[forge.other_secret])
    label = f"A webhook signed with another secret, with headers such as {_DEBUG_HEADERS[1]}: true,"
    debugging = dict.fromkeys(_DEBUG_HEADERS, "true")
    return [
        other,
        forge.almost_right(_webhook(forge)),
        forge.right_beginning(_webhook(forge)),
        msgspec.structs.replace(other, label=label, headers={**other.headers, **debugging}),
    ]


def _webhook(forge: Forge) -> Outgoing:
    return forge.signed("", forge.event(forge.new_id()))


def _unknown_scheme(forge: Forge) -> list[Outgoing]:
    wrong, alone = (_webhook(forge) for _ in range(2))
    beside = forge.beside_unknown_scheme(
        _webhook(forge), "A webhook with a wrong signature, and one of an unknown scheme beside it,"
    )
    return [
        forge.in_unknown_scheme(
            forge.all_wrong(wrong), "A webhook with only a signature of an unknown scheme, which is wrong,"
        ),
        forge.in_unknown_scheme(alone, "A webhook with only a signature of an unknown scheme"),
        *([beside] if beside is not None else []),
    ]


def _malformed_timestamp(forge: Forge) -> list[Outgoing]:
    return [forge.with_timestamp(_webhook(forge), f"A webhook whose timestamp is {what}", text) for what, text in _NOT_TIMES]


def _aged(*ages: tuple[str, int]) -> Build:
    return lambda forge: [forge.signed(label, forge.event(forge.new_id()), age=age) for label, age in ages]


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
    one_word, not_encoded, cut, empty = (_webhook(forge) for _ in range(4))
    return [
        forge.with_header(one_word, "A webhook whose signature header is one word", forge.signature_header, "not-a-signature"),
        forge.with_signature(not_encoded, "A webhook whose signature is not encoded properly", lambda _: "*not*encoded*"),
        forge.with_signature(cut, "A webhook with only the first 8 characters of its signature", lambda text: text[:8]),
        forge.with_signature(empty, "A webhook with an empty signature", lambda _: ""),
    ]


def _duplicate(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    # As a retry does, the second one has a later timestamp, and so another signature, but the same id.
    return [forge.signed("The webhook", event, age=1), forge.signed("The same webhook, sent again,", event)]


def _copies(forge: Forge) -> list[Outgoing]:
    webhooks = [forge.signed("The same webhook", forge.event(forge.new_id())) for _ in range(COPIED)]
    return [webhook for webhook in webhooks for _ in range(COPIES)]


def _changes(forge: Forge) -> list[Outgoing]:
    payout_id, requests = forge.new_id(), []
    kinds: tuple[EventType, ...] = (
        *("payout.created", "payout.processing", "payout.failed", "payout.reinitiated", "payout.processing", "payout.failed"),
        *("payout.reinitiated", "payout.processing", "payout.succeeded"),
    )
    assert kinds[SECOND_FAILURE] == "payout.failed"
    for version, kind in enumerate(kinds, start=1):
        event = forge.event_of(kind, id=payout_id, merchant_reference=f"receiver-test-{payout_id[-12:]}", version=version)
        requests.append(forge.signed(f"The payout's event {version} ({kind})", event))
    return requests


def _every_event(forge: Forge) -> list[Outgoing]:
    return [forge.signed(f"A webhook of type {kind}", forge.event_of(kind)) for kind in forge.kinds()]


def _wallets(forge: Forge) -> list[Outgoing]:
    requests = []
    for code in ("EASYPAISA", "JAZZCASH"):
        wallet = {"dest_type": "WALLET", "bank_code": None, "wallet_code": code, "account_number": "03001234567"}
        event = forge.event_of("payout.succeeded", **wallet, user_id=forge.new_id())
        requests.append(forge.signed(f"A webhook of a payout to a wallet ({code})", event))
    return requests


def _texts(forge: Forge) -> list[Outgoing]:
    requests = []
    for name, title, note in _TEXTS:
        event = forge.event_of("payout.succeeded", account_title=title, metadata={"note": note, title: "yes"})
        requests.append(forge.signed(f"A webhook with {name}", event))
    return requests


def _late_event(forge: Forge) -> list[Outgoing]:
    then = forge.ago(_LATE)
    event = forge.event_of("payout.succeeded", created_at=then, updated_at=then, processed_at=then)
    return [forge.signed("A webhook of an event three days ago, sent now,", {**event, "timestamp": then})]


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
    new = {forge.type_member: "payout.new_in_the_future"}
    return [forge.changed("A webhook of a type that does not exist yet", event, lambda body: body | new)]


def _unknown_fields(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    return [forge.changed("A webhook with new fields", event, _with_new_fields)]


def _with_new_fields(body: Json) -> Json:
    inner = {"new_field": "new", "new_object": {"new": True}}
    return {name: value | inner if isinstance(value, dict) else value for name, value in body.items()} | {"new_field": 1}


def _raw_body(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    another = forge.event(forge.new_id())
    label = "A webhook whose JSON has unusual spaces, escapes and order of members"
    return [
        forge.signed(label, event, body=spelled_unusually(forge.encode(event))),
        forge.signed("A webhook with line breaks around its JSON", another, body=b"\n" + forge.encode(another) + b"\r\n"),
    ]


def _large_body(forge: Forge) -> list[Outgoing]:
    requests = []
    for size in (LARGEST_BODY, LARGE_BODY):
        event = forge.event(forge.new_id())
        # Not every format has the metadata.
        place, name = (event["data"]["metadata"], "note") if forge.wire is None else (event["data"], "account_title")
        place[name] = ""
        place[name] = "x" * (size - len(forge.encode(event)))
        requests.append(forge.signed(f"A webhook of {size // 1024} KiB", event))
    return requests


def _burst(forge: Forge) -> list[Outgoing]:
    return [forge.signed("One of the webhooks", forge.event(forge.new_id())) for _ in range(BURST)]


def _unsigned(forge: Forge) -> list[Outgoing]:
    return [Outgoing("A GET request", {}, b"", "GET"), Outgoing("An empty POST without a signature", {}, b"")]


def _no_time(forge: Forge) -> str | None:
    return None if forge.signs_time() else "This way of signing covers no timestamp, so this check does not apply."


def _native(forge: Forge) -> str | None:
    return None if forge.wire is None else "A payout that failed cannot be paid again in this format, so this does not apply."


def _one_signature(forge: Forge) -> str | None:
    return None if forge.has_rotation() else "This way of signing has a single signature, so this check does not apply."


def _known_scheme(forge: Forge) -> str | None:
    return None if forge.signing != "custom" else "A custom signature names no scheme, so this check does not apply."


CHECKS: Final = (
    Check("accepts_valid", _valid("A valid webhook"), judge_first),
    Check("refuses_tampered_body", _tampered, must_refuse, probing=Probing.ONCE_EACH),
    Check("refuses_wrong_key", _wrong_key, must_refuse, probing=Probing.ONCE_EACH),
    Check(
        "refuses_stale_timestamp",
        _aged(("A webhook signed an hour ago", _HOUR), ("A webhook signed six minutes ago", _SIX_MINUTES)),
        must_refuse,
        _no_time,
        probing=Probing.ONCE_EACH,
    ),
    Check(
        "refuses_future_timestamp",
        _aged(("A webhook dated an hour ahead", -_HOUR), ("A webhook dated six minutes ahead", -_SIX_MINUTES)),
        judge_future,
        _no_time,
        probing=Probing.ONCE_EACH,
    ),
    Check("refuses_missing_headers", _missing_headers, must_refuse, probing=Probing.ONCE_EACH),
    Check("refuses_malformed_signature", _malformed, must_not_accept, probing=Probing.ONCE_EACH),
    Check("refuses_malformed_timestamp", _malformed_timestamp, must_refuse, _no_time, probing=Probing.ONCE_EACH),
    Check("refuses_unknown_scheme", _unknown_scheme, must_refuse, _known_scheme, probing=Probing.ONCE_EACH),
    Check(
        "accepts_recent_timestamp",
        _aged(("A webhook signed 30 seconds ago", 30)),
        must_act,
        _no_time,
        probing=Probing.UNTIL_APPLIED,
    ),
    Check("handles_duplicate", _duplicate, judge_duplicate, probing=Probing.IN_STEPS, steps=_ONE_IN_VAIN),
    Check("handles_concurrent_duplicates", _copies, judge_copies, probing=Probing.COPIED),
    Check("handles_out_of_order", _out_of_order, judge_order, probing=Probing.IN_STEPS, steps=_ONE_IN_VAIN),
    Check("handles_every_change", _changes, judge_changes, _native, probing=Probing.IN_STEPS, steps=_CHANGES),
    Check("accepts_late_event", _late_event, must_act, probing=Probing.UNTIL_APPLIED),
    Check("accepts_rotation", _rotation, must_accept, _one_signature),
    Check("accepts_every_event", _every_event, must_accept),
    Check("accepts_wallets", _wallets, must_act, probing=Probing.UNTIL_APPLIED),
    Check("accepts_any_text", _texts, must_act, probing=Probing.UNTIL_APPLIED),
    Check("accepts_unknown_event", _unknown_event, must_accept),
    Check("accepts_unknown_fields", _unknown_fields, must_accept),
    Check("keeps_raw_body", _raw_body, must_accept),
    Check("accepts_large_body", _large_body, judge_large),
    Check("survives_burst", _burst, judge_burst, is_burst=True, probing=Probing.UNTIL_APPLIED),
    Check("answers_in_time", _valid("A valid webhook"), judge_time),
    Check("refuses_unsigned", _unsigned, must_refuse),
)
"""All checks, in the order of a report."""
NAMES: Final = tuple(check.name for check in CHECKS)
