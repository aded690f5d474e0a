"""Sign and verify webhooks according to Standard Webhooks 1.0.0: `v1` (HMAC-SHA256) and `v1a` (Ed25519).

Pure: the random bytes of a new secret and the time of a check are passed in. The signed content is
`{webhook-id}.{webhook-timestamp}.{raw body}`. A `whsk_` key has the layout of the Svix server: seed, then public key.
"""

import hmac
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of every secret, not a secret
PRIVATE_KEY_PREFIX = "whsk_"
PUBLIC_KEY_PREFIX = "whpk_"

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
NOW_HEADER = "x-sandbox-now"
"""Carries the merchant's time; it is not signed."""

TOLERANCE = 300
"""How many seconds a timestamp may differ from the time of the check."""

_SECRET_SIZES = range(24, 65)  # the specification: 192 to 512 bits
_TIMESTAMP_DIGITS = 12  # enough until the year 33658; parsing more digits would only cost time
_ED25519_KEY = 32
_ED25519_SIGNATURE_TEXT = 88  # 64 bytes as padded base64


def new_secret(random: bytes) -> str:
    """Format 32 random bytes as a secret: `whsec_` and their base64. Raises ValueError for any other number of bytes."""
    if len(random) != 32:
        raise ValueError("A new webhook secret must have exactly 32 random bytes.")
    return SECRET_PREFIX + _text(random)


def decode_secret(secret: str) -> bytes:
    """Return the bytes of a `whsec_` secret, whose base64 may lack its padding.

    Raises ValueError if the prefix, the base64 or the size is wrong; the message does not repeat the secret.
    """
    return _decode(secret, SECRET_PREFIX, _SECRET_SIZES, "A webhook secret", "24 to 64 bytes")


def headers(message_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """Return the three headers, signed with every secret, so that receivers with the old or the new secret can verify them.

    Raises ValueError if there is no secret: an unsigned webhook must never be sent.
    """
    return _headers(message_id, timestamp, body, secrets, _hmac_text)


def verify(secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: int) -> str | None:
    """Check a received webhook against each of the secrets. Return None if it is valid, or else the reason as a sentence.

    Header names are case-insensitive. `now` is Unix time in whole seconds. Never raises, whatever the untrusted headers hold.
    Signatures of unknown versions are skipped, because newer senders may add some.
    """
    parts = _received(headers, body, now)
    if isinstance(parts, str):
        return parts
    content, signatures = parts
    # Compare the text, not the decoded bytes: base64 decoders ignore stray characters and unused bits, so one
    # signature would have many valid spellings. Comparing text also cannot fail on bad base64.
    given = [_bytes(signature) for signature in signatures if signature.startswith("v1,")]
    if not given:
        return "The webhook-signature header has no v1 signature."
    for secret in secrets:
        expected = _hmac_text(secret, content).encode()
        for signature in given:
            if hmac.compare_digest(expected, signature):
                return None
    return "No signature matches: the secret, the body or one of the signed headers differs."


# Ed25519, for endpoints that choose it: the receiver needs only the public key, no secret.


def new_private_key(random: bytes) -> str:
    """Format 32 random bytes as an Ed25519 key: `whsk_` and the base64 of seed and public key, as Svix does.

    Raises ValueError for any other number of bytes.
    """
    if len(random) != _ED25519_KEY:
        raise ValueError("A new Ed25519 private key must have exactly 32 random bytes.")
    return PRIVATE_KEY_PREFIX + _text(random + _public_bytes(random))


def decode_private_key(key: str) -> bytes:
    """Return the 32-byte seed in a `whsk_` key, which holds the seed alone or the seed and the public key.

    Raises ValueError if it holds neither, or if the two do not match; the message does not repeat the key.
    """
    raw = _decode(key, PRIVATE_KEY_PREFIX, (32, 64), "An Ed25519 private key", "32 or 64 bytes")
    seed = raw[:_ED25519_KEY]
    if len(raw) > _ED25519_KEY and not hmac.compare_digest(raw[_ED25519_KEY:], _public_bytes(seed)):
        raise ValueError("The two halves of the Ed25519 private key do not match.")
    return seed


def public_key(private_key: bytes) -> str:
    """Return the `whpk_` text of a private key's public key. Raises ValueError if the private key is not 32 bytes."""
    return PUBLIC_KEY_PREFIX + _text(_public_bytes(private_key))


def headers_v1a(message_id: str, timestamp: int, body: bytes, private_keys: Sequence[bytes]) -> dict[str, str]:
    """Return the three headers, signed with every key, as in `headers`. Raises ValueError for no key or a malformed one."""
    return _headers(message_id, timestamp, body, private_keys, _ed25519_text)


def verify_v1a(public_keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: int) -> str | None:
    """Like `verify`, with public keys.

    Raises ValueError only if a public key is not 32 bytes: keys come from the caller, not from the request.
    """
    keys = [_loaded_public(key) for key in public_keys]
    parts = _received(headers, body, now)
    if isinstance(parts, str):
        return parts
    content, signatures = parts
    texts = [signature[4:] for signature in signatures if signature.startswith("v1a,")]
    if not texts:
        return "The webhook-signature header has no v1a signature."
    for raw in filter(None, map(_ed25519_signature, texts)):
        for key in keys:
            try:
                key.verify(raw, content)
            except InvalidSignature:
                continue
            return None
    return "No signature matches: the key, the body or one of the signed headers differs."


def _content(message_id: str, timestamp: str, body: bytes) -> bytes:
    return _bytes(f"{message_id}.{timestamp}.") + body


def _headers(
    message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes], sign: Callable[[bytes, bytes], str]
) -> dict[str, str]:
    if not keys:
        raise ValueError("A webhook must be signed with at least one secret.")
    stamp = str(timestamp)
    content = _content(message_id, stamp, body)
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: stamp,
        SIGNATURE_HEADER: " ".join([sign(key, content) for key in keys]),
    }


def _hmac_text(secret: bytes, content: bytes) -> str:
    # hmac.digest is one call into OpenSSL. hmac.new builds Python objects and takes three times as long.
    return "v1," + _text(hmac.digest(secret, content, "sha256"))


def _ed25519_text(private_key: bytes, content: bytes) -> str:
    return "v1a," + _text(_loaded_private(private_key).sign(content))


def _received(headers: Mapping[str, str], body: bytes, now: int) -> tuple[bytes, list[str]] | str:
    """Return the signed content and its signatures, or the reason why the headers are not valid."""
    found = {name: headers.get(name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)}
    if None in found.values():
        found |= {name.lower(): value for name, value in headers.items() if name.lower() in found}
    message_id, stamp, signature = found[ID_HEADER], found[TIMESTAMP_HEADER], found[SIGNATURE_HEADER]
    if not message_id:
        return "The webhook-id header is missing."
    if not stamp:
        return "The webhook-timestamp header is missing."
    if not signature:
        return "The webhook-signature header is missing."
    # With a full stop in the id, the same signed bytes could be split into id, timestamp and body in two ways.
    if "." in message_id:
        return "The webhook-id header must not contain a full stop."
    # Check before int(), which accepts signs, underscores and other scripts' digits, and is slow for huge texts.
    if len(stamp) > _TIMESTAMP_DIGITS or not stamp.isascii() or not stamp.isdigit():
        return "The webhook-timestamp header is not a Unix time in whole seconds."
    age = now - int(stamp)
    if age > TOLERANCE:
        return f"The webhook-timestamp header is more than {TOLERANCE} seconds in the past."
    if age < -TOLERANCE:
        return f"The webhook-timestamp header is more than {TOLERANCE} seconds in the future."
    # The signature covers the timestamp as the sender wrote it, including leading zeros.
    return _content(message_id, stamp, body), signature.split(" ")


def _ed25519_signature(text: str) -> bytes | None:
    """Return the 64 bytes of a signature's base64, or None if it is not their canonical base64."""
    if len(text) != _ED25519_SIGNATURE_TEXT or not text.isascii():
        return None
    try:
        raw = a2b_base64(text, strict_mode=True)
    except Base64Error:
        return None
    return raw if _text(raw) == text else None


def _decode(text: str, prefix: str, sizes: Sequence[int], what: str, size: str) -> bytes:
    if not text.startswith(prefix):
        raise ValueError(f"{what} must begin with {prefix}.")
    encoded = text[len(prefix) :]
    try:
        raw = a2b_base64(encoded + "=" * (-len(encoded) % 4), strict_mode=True)
    except ValueError:  # invalid base64, or a character beyond ASCII
        # Drop the cause: its message can contain a part of the secret, which must not appear in a log.
        raise ValueError(f"{what} must be {prefix} followed by base64.") from None
    if len(raw) not in sizes:
        raise ValueError(f"{what} must have {size}.")
    return raw


def _text(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).decode()


def _bytes(text: str) -> bytes:
    # Some servers decode header bytes into lone surrogates. "surrogatepass" never raises on them and, unlike
    # "replace", keeps different texts different.
    return text.encode("utf-8", "surrogatepass")


# Cached: parsing a key costs more than signing with it, and an endpoint always signs with the same key.


@lru_cache(maxsize=1024)
def _loaded_private(private_key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(private_key)


@lru_cache(maxsize=1024)
def _loaded_public(raw: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(raw)


def _public_bytes(private_key: bytes) -> bytes:
    return _loaded_private(private_key).public_key().public_bytes_raw()
