"""Build the webhooks of a receiver test: events of made-up payouts, signed in any dialect, valid or damaged on purpose.

Pure: the time, the secret and new ids are passed in.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args
from uuid import UUID

import msgspec

from sandbox.domain.clock import render
from sandbox.domain.enumerations import EventType
from sandbox.domain.event_samples import sample
from sandbox.domain.ids import IdSource
from sandbox.webhooks.signing.dialects import (
    CustomSigning,
    settings_of,
    signature_header,
    signature_headers,
    timestamp_header,
    type_member,
    unrelated_secret,
)
from sandbox.webhooks.signing.standard_webhooks import NOW_HEADER, TIMESTAMP_HEADER

ReceiverSigning = Literal["v1", "v1a", "stripe", "github", "safepay", "custom"]
"""The ways to sign that a receiver can be tested with."""

Json = dict[str, Any]
_CREATED_AT: Final = "2026-01-31T12:00:00.000Z"
_FIRST: Final = ("payout.created", None, "PENDING")
STAGES: Final = (_FIRST, ("payout.processing", "PENDING", "PROCESSING"), ("payout.succeeded", "PROCESSING", "SUCCESS"))
"""A payout's events in order: type, previous status, status. The n-th has version n."""

_SIGNATURE: Final = re.compile(r"(v1a?,|v1=|sha256=)([A-Za-z0-9+/=]+)")
_STRIPE_TIME: Final = re.compile(r"t=[0-9]+")
_UNKNOWN_SCHEME: Final = {"v1": "v2,", "v1a": "v2,", "stripe": "v2=", "github": "sha512=", "safepay": "sha512="}
_BETWEEN_SIGNATURES: Final = {"v1": " ", "v1a": " ", "stripe": ","}
_BEGINNING: Final = 16
"""The number of correct characters in a signature whose beginning alone is right."""
_BASE64: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_HEX: Final = "0123456789abcdef"


class Outgoing(msgspec.Struct, frozen=True):
    """A request to a receiver. `label` says what is special about it, as the subject of a sentence."""

    label: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    payout_id: str = ""
    """The payout that it is about, as the receiver knows it."""


@dataclass(frozen=True, slots=True)
class WireFormat:
    """How events are written for receivers of another provider."""

    body: Callable[[Json], bytes]
    payout_id: Callable[[str], str]
    kinds: frozenset[str]
    """The types of native events that are sent at all."""


class Forge:
    """Makes requests for one receiver.

    `now` is the host's time in Unix seconds; `new_id` returns a new UUID. `custom` holds the settings if `signing` is `custom`.
    Events are written as `wire` says, or natively.
    """

    def __init__(
        self,
        signing: str,
        secret: str,
        now: int,
        now_text: str,
        new_id: Callable[[], str],
        custom: CustomSigning | None = None,
        wire: WireFormat | None = None,
    ) -> None:
        self.signing = signing
        self.wire = wire
        self._custom = custom = settings_of(signing, custom)
        self._signature = _SIGNATURE if custom is None else _custom_signature(custom)
        is_base64 = signing in ("v1", "v1a") if custom is None else custom.encoding == "base64"
        self._alphabet = _BASE64 if is_base64 else _HEX
        self.now = now
        self.new_id = new_id
        self._secret = secret
        self._now_text = now_text

    @property
    def other_secret(self) -> str:
        """A secret that the receiver does not have."""
        return unrelated_secret(self._secret)

    def event(self, payout_id: str, stage: int = 3) -> Json:
        """Return a new event of a payout: the n-th of STAGES, counted from 1."""
        kind, previous, status = STAGES[stage - 1]
        return {
            "id": self.new_id(),
            "type": kind,
            "timestamp": self._now_text,
            "livemode": False,
            "previous_status": previous,
            "data": {
                "id": payout_id,
                "merchant_reference": f"receiver-test-{payout_id[-12:]}",
                "amount": "1500.00",
                "currency": "PKR",
                "dest_type": "BANK",
                "bank_code": "HBL",
                "wallet_code": None,
                "account_number": "12345678900001",
                "account_title": "Ayesha Khan",
                "status": status,
                "scenario": "success",
                "failure_code": None,
                "failure_reason": None,
                "psp_reference": f"PSP-{payout_id[-12:].upper()}" if stage == len(STAGES) else None,
                "attempts": 0 if stage == 1 else 1,
                "version": stage,
                "metadata": {"order": "1042"},
                "user_id": None,
                "created_at": _CREATED_AT,
                "updated_at": self._now_text,
                "processed_at": self._now_text if stage == len(STAGES) else None,
            },
        }

    def event_of(self, kind: EventType, **data: Any) -> Json:
        """Return a new event of any type, with the sandbox's own sample of its data. `data` replaces members of the sample."""
        ids = IdSource(self.now * 1000, 0, lambda bits: UUID(self.new_id()).int & ((1 << bits) - 1))
        previous, encoded = sample(kind, ids, self._now_text)
        found = msgspec.json.decode(encoded) | data
        return {
            "id": self.new_id(),
            "type": kind,
            "timestamp": self._now_text,
            "livemode": False,
            "previous_status": previous,
            "data": found,
        }

    def ago(self, seconds: int) -> str:
        """Return the time `seconds` ago in the format of events."""
        return render(datetime.fromtimestamp(self.now - seconds, UTC))

    def signed(
        self,
        label: str,
        event: Json,
        *,
        body: bytes | None = None,
        age: int = 0,
        secrets: Sequence[str] | None = None,
    ) -> Outgoing:
        """Return the webhook of an event, correctly signed unless `secrets` has others.

        `body` replaces the event's usual encoding. `age` is how many seconds ago it was signed; negative for the future.
        """
        raw = self.encode(event) if body is None else body
        keys = [self._secret] if secrets is None else secrets
        found = signature_headers(self.signing, keys, event["id"], self.now - age, raw, self._custom)
        named = found if self.wire is not None else {**found, NOW_HEADER: self._now_text}
        return Outgoing(label, named, raw, payout_id=self.payout_id(event))

    def encode(self, event: Json) -> bytes:
        """Return an event as the receiver gets it."""
        return encode(event) if self.wire is None else self.wire.body(event)

    def payout_id(self, event: Json) -> str:
        """Return the id of an event's payout, as the receiver knows it. It means nothing for events of other objects."""
        id_: str = event["data"].get("id", "")
        return id_ if self.wire is None else self.wire.payout_id(id_)

    def kinds(self) -> list[EventType]:
        """Return the types of events that are sent."""
        return [kind for kind in get_args(EventType) if self.wire is None or kind in self.wire.kinds]

    def changed(self, label: str, event: Json, change: Callable[[Json], Json]) -> Outgoing:
        """Return the webhook of an event whose body was changed before it was signed."""
        return self.signed(label, event, body=encode(change(msgspec.json.decode(self.encode(event)))))

    @property
    def type_member(self) -> str:
        """The member of a body that says the type of the event."""
        return type_member(self.signing)

    def rotated(self, event: Json, *, wrong_first: bool) -> Outgoing:
        """Return a webhook that is signed with the receiver's secret and with another one."""
        keys = [self.other_secret, self._secret] if wrong_first else [self._secret, self.other_secret]
        place = "second" if wrong_first else "first"
        return self.signed(f"A webhook with two signatures, of which the {place} one is right", event, secrets=keys)

    @property
    def signature_header(self) -> str:
        """The name of the header that carries the signature."""
        return signature_header(self.signing, self._custom)

    @property
    def required_headers(self) -> list[str]:
        """The headers without which a webhook cannot be verified."""
        if self.signing in ("v1", "v1a"):
            return ["webhook-id", TIMESTAMP_HEADER, self.signature_header]
        stamp = None if self._custom is None or not self.signs_time() else timestamp_header(self._custom)
        return [self.signature_header, *([] if stamp is None else [stamp])]

    def signs_time(self) -> bool:
        """Return whether the signature covers a timestamp."""
        return self.signing != "github" if self._custom is None else "{timestamp}" in self._custom.template

    def has_rotation(self) -> bool:
        """Return whether a webhook can carry several signatures."""
        return self.signing != "github" and self._custom is None

    def with_timestamp(self, webhook: Outgoing, label: str, text: str) -> Outgoing:
        """Return the webhook with another timestamp, which its signature does not cover."""
        if self._custom is not None:
            header = timestamp_header(self._custom)
            if header is not None:
                return self.with_header(webhook, label, header, text)
            start = self._custom.prefix.replace("{timestamp}", text)
            value = self._signature.sub(lambda found: start + found[2], webhook.headers[self.signature_header])
            return self.with_header(webhook, label, self.signature_header, value)
        if self.signing != "stripe":
            return self.with_header(webhook, label, TIMESTAMP_HEADER, text)
        value = _STRIPE_TIME.sub(f"t={text}", webhook.headers[self.signature_header])
        return self.with_header(webhook, label, self.signature_header, value)

    def in_unknown_scheme(self, webhook: Outgoing, label: str) -> Outgoing:
        """Return the webhook with its signature declared to be of a scheme that does not exist."""
        value = _SIGNATURE.sub(lambda found: _UNKNOWN_SCHEME[self.signing] + found[2], webhook.headers[self.signature_header])
        return self.with_header(webhook, label, self.signature_header, value)

    def beside_unknown_scheme(self, webhook: Outgoing, label: str) -> Outgoing | None:
        """Return the webhook with a wrong signature, and beside it one of a scheme that does not exist.

        Returns None if a webhook of this way of signing carries one signature only.
        """
        if not self.has_rotation():
            return None
        name = self.signature_header
        right = _SIGNATURE.search(webhook.headers[name])
        assert right is not None, "a signed webhook has a signature"
        wrong = self.all_wrong(webhook).headers[name]
        value = wrong + _BETWEEN_SIGNATURES[self.signing] + _UNKNOWN_SCHEME[self.signing] + right[2]
        return self.with_header(webhook, label, name, value)

    def with_signature(self, webhook: Outgoing, label: str, change: Callable[[str], str]) -> Outgoing:
        """Return the webhook with its signature changed. The version or timestamp before it stays the same."""
        value = webhook.headers[self.signature_header]
        value = self._signature.sub(lambda found: found[1] + change(found[2]), value)
        return self.with_header(webhook, label, self.signature_header, value)

    @staticmethod
    def with_header(webhook: Outgoing, label: str, name: str, value: str | None) -> Outgoing:
        """Return the webhook with a header changed, or removed if the value is None."""
        kept = {key: text for key, text in webhook.headers.items() if key != name or value is not None}
        headers = kept if value is None else {**kept, name: value}
        return msgspec.structs.replace(webhook, label=label, headers=headers)

    def almost_right(self, webhook: Outgoing) -> Outgoing:
        """Return the webhook with a signature whose end is wrong."""
        return self.with_signature(webhook, "A webhook whose signature is right except at its end", self._wrong_end)

    def all_wrong(self, webhook: Outgoing) -> Outgoing:
        """Return the webhook with a signature of the same length in which every character is wrong."""
        return self.with_signature(
            webhook, "A webhook whose signature is wrong everywhere", lambda text: "".join(map(self._other, text))
        )

    def right_beginning(self, webhook: Outgoing) -> Outgoing:
        """Return the webhook with a signature in which only the first characters are right."""
        return self.with_signature(
            webhook,
            f"A webhook of whose signature only the first {_BEGINNING} characters are right",
            lambda text: text[:_BEGINNING] + "".join(map(self._other, text[_BEGINNING:])),
        )

    def _wrong_end(self, text: str) -> str:
        end = len(text.rstrip("=")) - 1
        if self._alphabet is _BASE64:
            end -= 1  # the last character of the base64 has unused bits, and a change must not touch only those
        return text[:end] + self._other(text[end]) + text[end + 1 :]

    def _other(self, character: str) -> str:
        place = self._alphabet.find(character)
        return character if place < 0 else self._alphabet[(place + len(self._alphabet) // 2) % len(self._alphabet)]


def _custom_signature(custom: CustomSigning) -> re.Pattern[str]:
    """Return the pattern of the signature at the end of a custom header. The prefix may have the same characters."""
    size = hashlib.new(custom.algorithm).digest_size
    length = 2 * size if custom.encoding == "hex" else (size + 2) // 3 * 4
    return re.compile(rf"^(.*)([A-Za-z0-9+/=]{{{length}}})\Z")


def encode(event: Json) -> bytes:
    """Return an event as the sandbox sends it: JSON without spaces."""
    return msgspec.json.encode(event)


def spelled_unusually(body: bytes) -> bytes:
    """Return the same event as other valid JSON: spaces, line breaks, escapes, and the members in another order."""
    return _spelled(msgspec.json.decode(body), 0).encode()


def _spelled(value: Any, depth: int) -> str:
    if isinstance(value, dict):
        members = [f"{_escaped(name)} :  {_spelled(item, depth + 1)}" for name, item in reversed(value.items())]
        indent = "\n" + "\t" * (depth + 1)
        return "{" + indent + f" ,{indent}".join(members) + "\n}"
    if isinstance(value, str):
        return _escaped(value)
    return msgspec.json.encode(value).decode()


def _escaped(text: str) -> str:
    """Return a JSON string whose first character is escaped although it need not be."""
    rest = msgspec.json.encode(text[1:]).decode()[1:-1].replace("/", "\\/")
    return f'"\\u{ord(text[0]):04x}{rest}"' if text else '""'
