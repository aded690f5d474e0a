"""Sign webhooks as an endpoint asks: by Standard Webhooks (`v1`, `v1a`), or in the dialect of another provider.

The dialects `stripe`, `github`, `safepay` and `custom` let a receiver run unchanged that was written for others. Their
key is the secret's text, including its `whsec_` prefix, as with Stripe; that of `safepay` is what follows the prefix, decoded.

During a rotation, `v1` and `v1a` sign with every valid secret, and `stripe` sends one `v1=` for each. GitHub and most other
providers send a single signature, so `github`, `safepay` and `custom` sign with the current secret only.

Pure: the time and all secrets are passed in.
"""

import hmac
import re
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec

from sandbox.domain.enumerations import HashAlgorithm, KeyEncoding, SignatureEncoding, TimestampFormat
from sandbox.http.body_errors import FieldProblem
from sandbox.webhooks.signing.body_headers import github_names, safepay_names
from sandbox.webhooks.signing.standard_webhooks import (
    ID_HEADER,
    NOW_HEADER,
    PRIVATE_KEY_PREFIX,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    decode_private_key,
    decode_secret,
    headers,
    headers_v1a,
    new_private_key,
    new_secret,
    public_key,
)

STRIPE_HEADER: Final = "Stripe-Signature"
GITHUB_HEADER: Final = "X-Hub-Signature-256"

_SIGNATURE_HEADERS: Final = MappingProxyType(
    {"v1": SIGNATURE_HEADER, "v1a": SIGNATURE_HEADER, "stripe": STRIPE_HEADER, "github": GITHUB_HEADER}
)
_TEMPLATES: Final = MappingProxyType(
    {"v1": "{id}.{timestamp}.{body}", "v1a": "{id}.{timestamp}.{body}", "stripe": "{timestamp}.{body}", "github": "{body}"}
)
_STARTS: Final = MappingProxyType({"v1": "v1,", "v1a": "v1a,", "stripe": "t={timestamp},v1=", "github": "sha256="})
_ALL_SECRETS: Final = frozenset({"v1", "v1a", "stripe"})
"""The dialects that sign with every valid secret during a rotation."""

_PLACEHOLDER: Final = re.compile(r"\{timestamp\}|\{id\}|\{body\}")
_RESERVED: Final = frozenset(
    (
        *(ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER, NOW_HEADER, "traceparent", "tracestate"),
        *("host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "date", "via"),
        *("proxy-authenticate", "proxy-authorization", "proxy-connection", "user-agent", "authorization", "cookie"),
    )
)
"""Headers that the sandbox or HTTP itself uses."""
_RESERVED_PREFIXES: Final = ("content-", "accept", "x-sandbox-")
_FINGERPRINT_DIGITS: Final = 16

HeaderName = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]*\Z",
        extra={"must": "a header name of 1 to 64 letters, digits and hyphens"},
    ),
]


_TEMPLATE_PART: Final = r"(?:[^{}\x00-\x09\x0b-\x1f\x7f]|\{timestamp\}|\{id\})"


class CustomSigning(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True, kw_only=True):
    """How to sign when an endpoint's `signing` is `custom`.

    `template` is the signed content: its placeholders `{timestamp}`, `{id}` (the webhook-id) and `{body}` are
    replaced, everything else is taken literally. The signature is written into `header`, after `prefix`, in which
    `{timestamp}` is replaced too. The timestamp is sent in `timestamp_header`; without one, if the template needs it and the
    prefix does not contain it, in webhook-timestamp. It is written as `timestamp_format` says: in Unix seconds, or as
    `2026-01-31T12:00:00Z`. The key is the secret's `text`, or what follows `whsec_`, decoded from `base64`.
    """

    header: HeaderName
    algorithm: HashAlgorithm
    encoding: SignatureEncoding
    template: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=200,
            pattern=r"^[^\x00-\x09\x0b-\x1f\x7f]*\Z",
            description="What is signed. `{timestamp}`, `{id}` (the webhook-id) and `{body}` are replaced.",
            extra={"must": "a string of 1 to 200 characters without control characters other than line feeds"},
            extra_json_schema={"x-documented-pattern": f"^{_TEMPLATE_PART}*\\{{body\\}}{_TEMPLATE_PART}*$"},
        ),
    ]
    prefix: Annotated[
        str,
        msgspec.Meta(
            max_length=64,
            pattern=r"^([!-~][ -~]*)?\Z",
            description="What precedes the signature in the header. `{timestamp}` is replaced.",
            extra={"must": "a string of at most 64 printable ASCII characters that does not begin with a space"},
            extra_json_schema={"x-documented-pattern": r"^((?:[!-z|~]|\{timestamp\})(?:[ -z|~]|\{timestamp\})*)?$"},
        ),
    ] = ""
    timestamp_header: HeaderName | None = None
    timestamp_format: TimestampFormat = "unix"
    key_encoding: KeyEncoding = "text"


_PRESETS: Final = MappingProxyType(
    {
        "safepay": CustomSigning(
            header="X-SFPY-SIGNATURE",
            algorithm="sha256",
            encoding="hex",
            template="{timestamp}.{body}",
            prefix="sha256=",
            timestamp_header="X-SFPY-TIMESTAMP",
            timestamp_format="rfc3339",
            key_encoding="base64",
        )
    }
)
"""Dialects that are settings of `custom`. Their webhooks have no webhook-id."""


class SigningExample(msgspec.Struct, frozen=True):
    """How a webhook is signed. No secret is in it; keys are shown by their fingerprints."""

    signed_content: str
    headers: dict[str, str]
    steps: list[str]


def custom_signing_errors(fields: Mapping[str, Any]) -> list[FieldProblem]:
    """Return the validation errors in the fields of a CustomSigning that its schema cannot express. Skips absent fields."""
    errors: list[FieldProblem] = []
    names = {name: str(fields[name]) for name in ("header", "timestamp_header") if fields.get(name) is not None}
    errors += [
        (f"custom_signing.{field}", f"must not be {name}, which the sandbox or HTTP itself sets; choose another header")
        for field, name in names.items()
        if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIXES)
    ]
    if len(names) > len({name.lower() for name in names.values()}):
        errors.append(("custom_signing.timestamp_header", "must not be the header of the signature"))
    template = fields.get("template")
    if template is not None:
        rest = _PLACEHOLDER.sub("", template)
        if "{" in rest or "}" in rest:
            errors.append(("custom_signing.template", "must have no braces other than {timestamp}, {id} and {body}"))
        elif template.count("{body}") != 1:
            errors.append(("custom_signing.template", "must contain {body} exactly once"))
    rest = fields.get("prefix", "").replace("{timestamp}", "")
    if "{" in rest or "}" in rest:
        errors.append(("custom_signing.prefix", "must have no braces other than {timestamp}"))
    return errors


def signature_headers(
    signing: str, secrets: Sequence[str], event_id: str, timestamp: int, body: bytes, custom: CustomSigning | None = None
) -> dict[str, str]:
    """Return the signature headers of a webhook, with the webhook-id, or with the dialect's own names of the event.

    `secrets` are the texts of the endpoint's secrets (`whsec_`, or `whsk_` for `v1a`): the current one, then previous ones that
    are still valid. `timestamp` is in Unix seconds. `custom` holds the settings if `signing` is `custom`. Raises ValueError if
    there is no secret, if one does not fit the dialect, for an unknown dialect, or if `custom` is missing.
    """
    if signing == "v1":
        return headers(event_id, timestamp, body, [_hmac_key(secret) for secret in secrets])
    if signing == "v1a":
        return headers_v1a(event_id, timestamp, body, [_private_key(secret) for secret in secrets])
    custom = settings_of(signing, custom)
    name = signature_header(signing, custom)
    if not secrets:
        raise ValueError("A webhook must be signed with at least one secret.")
    content = _signed_content(signing, event_id, timestamp, body, custom)
    if signing == "stripe":
        signatures = "".join([f",v1={_hex(secret, content)}" for secret in secrets])
        return {ID_HEADER: event_id, name: f"t={timestamp}{signatures}"}
    if custom is None:
        return {ID_HEADER: event_id, **github_names(event_id, body), name: f"sha256={_hex(secrets[0], content)}"}
    named = safepay_names(body) if signing in _PRESETS else {ID_HEADER: event_id}
    stamp_header = timestamp_header(custom)
    if stamp_header is not None:
        named[stamp_header] = _stamp(timestamp, custom)
    raw = hmac.digest(_custom_key(secrets[0], custom), content, custom.algorithm)
    named[name] = custom.prefix.replace("{timestamp}", _stamp(timestamp, custom)) + _encoded(raw, custom.encoding)
    return named


def settings_of(signing: str, custom: CustomSigning | None = None) -> CustomSigning | None:
    """Return the settings of a dialect that has some: of `custom`, those given; None for a dialect without."""
    return custom if signing == "custom" else _PRESETS.get(signing)


def has_decoded_key(signing: str, key_encoding: str = "text") -> bool:
    """Return whether the key is decoded from the secret's base64. `key_encoding` is that of a custom signing."""
    preset = _PRESETS.get(signing)
    return signing == "v1" or (key_encoding if preset is None else preset.key_encoding) == "base64"


def type_member(signing: str) -> str:
    """Return the member of a webhook's body that says the type of its event."""
    return "webhook_event_type" if signing in _PRESETS else "type"


def signature_header(signing: str, custom: CustomSigning | None = None) -> str:
    """Return the name of the header that carries the signature. Raises ValueError as `signature_headers` does."""
    if signing == "custom" or signing in _PRESETS:
        custom = settings_of(signing, custom)
        if custom is None:
            raise ValueError("Custom signing needs its settings.")
        return custom.header
    try:
        return _SIGNATURE_HEADERS[signing]
    except KeyError:
        raise ValueError(
            f"Unknown signing {signing!r}: use one of {', '.join((*_SIGNATURE_HEADERS, *_PRESETS, 'custom'))}."
        ) from None


def secret_for(signing: str, random: bytes) -> str:
    """Format 32 random bytes as a secret for this dialect: `whsk_` for `v1a`, `whsec_` for all others. Raises ValueError."""
    return new_private_key(random) if signing == "v1a" else new_secret(random)


def shares_secrets(signing: str, other: str) -> bool:
    """Return whether two dialects use the same kind of secret, so that an endpoint can keep it when it changes its dialect."""
    return (signing == "v1a") is (other == "v1a")


def public_key_of(secret: str) -> str | None:
    """Return the `whpk_` public key of a `whsk_` key; None for other secrets. Raises ValueError if the key is malformed."""
    return public_key(_private_key(secret)) if secret.startswith(PRIVATE_KEY_PREFIX) else None


def unrelated_secret(secret: str) -> str:
    """Return another secret of the same kind, always the same one for a secret. It signs webhooks that must be refused."""
    digest = sha256(secret.encode()).digest()
    return new_private_key(digest) if secret.startswith(PRIVATE_KEY_PREFIX) else new_secret(digest)


def explain(
    signing: str, secrets: Sequence[str], event_id: str, timestamp: int, body: bytes, custom: CustomSigning | None = None
) -> SigningExample:
    """Return what `signature_headers` signs with what, step by step. Takes the same arguments and raises the same errors."""
    named = signature_headers(signing, secrets, event_id, timestamp, body, custom)
    custom = settings_of(signing, custom)
    content = _signed_content(signing, event_id, timestamp, body, custom)
    template = _template(signing, custom)
    steps = [f"Take the raw body as it is sent, before any parsing: {_measured(body)}."]
    if "{timestamp}" in template:
        form = "in whole Unix seconds" if custom is None or custom.timestamp_format == "unix" else "as RFC 3339 in UTC"
        steps.append(f"Take the time of the attempt {form}: {_stamp(timestamp, custom)}.")
    if "{id}" in template:
        steps.append(f"Take the id of the event, which is the webhook-id header: {event_id}.")
    if template == "{body}":
        steps.append("The body alone is the signed content.")
    else:
        steps.append(f"Put them together as {_quoted(template)}. This is the signed content: {_measured(content)}.")
    for place, secret in enumerate(secrets):
        if place and signing not in _ALL_SECRETS:
            steps.append("The previous secret is still valid, but this dialect sends one signature: the current secret's.")
            break
        which = "current" if not place else "previous, still valid"
        steps += _key_steps(signing, secret, which, content, custom)
    steps += _header_steps(signing, named, len(secrets) > 1, custom)
    return SigningExample(content.decode(errors="replace"), named, steps)


def _key_steps(signing: str, secret: str, which: str, content: bytes, custom: CustomSigning | None) -> list[str]:
    if signing == "v1a":
        public = public_key(_private_key(secret))
        return [f"Sign the content with the {which} Ed25519 private key. The receiver needs the public key: {public}."]
    if signing == "v1" or (custom is not None and custom.key_encoding == "base64"):
        key = _hmac_key(secret)
        origin = "remove whsec_ and decode the rest from base64"
    else:
        key = secret.encode()
        origin = "its text as it is, with whsec_, in UTF-8"
    algorithm = custom.algorithm if custom is not None else "sha256"
    raw = hmac.digest(key, content, algorithm)
    return [
        f"Make the key from the {which} secret: {origin}. The key: {_measured(key)}.",
        f"Compute HMAC-{algorithm.upper()} of the signed content with this key. In hex: {raw.hex()}.",
    ]


def _header_steps(signing: str, named: Mapping[str, str], has_previous: bool, custom: CustomSigning | None) -> list[str]:
    name = signature_header(signing, custom)
    encoding = "hex" if signing in ("stripe", "github") or (custom is not None and custom.encoding == "hex") else "base64"
    start = custom.prefix if custom is not None else _STARTS[signing]
    how = f"Write {_quoted(start)}, then the signature in {encoding}" if start else f"Write the signature in {encoding}"
    if has_previous and signing in _ALL_SECRETS:
        how += ", and so on for each secret" if signing == "stripe" else ", for each secret, separated by spaces"
    others = " and ".join(f"{header}: {value}" for header, value in named.items() if header != name)
    return [f"{how}. This is the header {name}: {named[name]}", f"Send it with {others}"]


def _template(signing: str, custom: CustomSigning | None) -> str:
    return _TEMPLATES[signing] if custom is None else custom.template


def _signed_content(signing: str, event_id: str, timestamp: int, body: bytes, custom: CustomSigning | None) -> bytes:
    before, after = _template(signing, custom).split("{body}")
    # Replace in one pass: an id that looks like a placeholder must stay as it is.
    values = {"{timestamp}": _stamp(timestamp, custom), "{id}": event_id}
    return b"".join((_filled(before, values), body, _filled(after, values)))


def _filled(text: str, values: Mapping[str, str]) -> bytes:
    return _PLACEHOLDER.sub(lambda match: values[match[0]], text).encode()


def timestamp_header(custom: CustomSigning) -> str | None:
    """Return the name of the header that carries a custom signature's timestamp, or None if there is none."""
    if custom.timestamp_header is not None:
        return custom.timestamp_header
    return TIMESTAMP_HEADER if "{timestamp}" in custom.template and "{timestamp}" not in custom.prefix else None


def _stamp(timestamp: int, custom: CustomSigning | None) -> str:
    if custom is None or custom.timestamp_format == "unix":
        return str(timestamp)
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _custom_key(secret: str, custom: CustomSigning) -> bytes:
    return secret.encode() if custom.key_encoding == "text" else _hmac_key(secret)


def _hex(secret: str, content: bytes) -> str:
    return hmac.digest(secret.encode(), content, "sha256").hex()


def _encoded(raw: bytes, encoding: SignatureEncoding) -> str:
    return raw.hex() if encoding == "hex" else b2a_base64(raw, newline=False).decode()


def _measured(content: bytes) -> str:
    return f"{len(content)} bytes, whose SHA-256 begins with {_fingerprint(content)}"


def _fingerprint(raw: bytes) -> str:
    return sha256(raw).hexdigest()[:_FINGERPRINT_DIGITS]


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


# Cached: an endpoint signs every webhook with the same secrets.


@lru_cache(maxsize=4096)
def _hmac_key(secret: str) -> bytes:
    return decode_secret(secret)


@lru_cache(maxsize=4096)
def _private_key(secret: str) -> bytes:
    return decode_private_key(secret)
