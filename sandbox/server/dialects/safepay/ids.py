"""Ids as Safepay writes them: a prefix and a UUID, and references that lead back to their payout. Pure.

`uetr`, `trace_reference`, `msg_id` and the like look random, as in life, but are the payout's id, encrypted with a key that
everybody can derive. So no table stores them, and every payout is found by them, also one that was made natively. They never
change: they are part of the contract.
"""

from functools import lru_cache
from hashlib import sha256
from string import ascii_uppercase, digits
from typing import Final
from uuid import UUID

from sandbox.domain.ids import is_uuid

_NAMESPACE: Final = b"psp-sandbox/safepay"
_HALF: Final = (1 << 61) - 1
_ROUNDS: Final = 4
_BASE36: Final = digits + ascii_uppercase
_MSG_ID_LENGTH: Final = 35


def prefixed(prefix: str, id_: str) -> str:
    """Return an id as Safepay writes it: `pm`, and a payout's id."""
    return f"{prefix}_{id_}"


def native(prefix: str, text: str) -> str | None:
    """Return the id in `prefixed(prefix, id)`; None for any other text."""
    id_ = text.removeprefix(f"{prefix}_")
    return id_ if id_ != text and is_uuid(id_) else None


@lru_cache(maxsize=4096)
def derived(prefix: str, *parts: str) -> str:
    """Return an id that these texts determine."""
    digest = sha256(_NAMESPACE + "\x1f".join((prefix, *parts)).encode()).digest()[:16]
    return f"{prefix}_{UUID(bytes=digest, version=5)}"


@lru_cache(maxsize=64)
def number(id_: str) -> str:
    """Return the merchant's counter inside an id (`uuid7`), as text: a small number that grows with each object."""
    value = _int(id_)
    return str((value >> 64 & 0xFFF) << 20 | value >> 42 & 0xFFFFF)


def reference(merchant_id: str, kind: str, payout_id: str) -> UUID:
    """Return the payout's reference of this kind, as a UUID of version 4."""
    left, right = _halves(_int(payout_id))
    for key in _keys(merchant_id, kind):
        left, right = right, left ^ _mix(key, right)
    return _joined(left, right, 4)


def payout_of(merchant_id: str, kind: str, given: UUID) -> str:
    """Return the id of the only payout that could have this reference."""
    left, right = _halves(given.int)
    for key in reversed(_keys(merchant_id, kind)):
        left, right = right ^ _mix(key, left), left
    return str(_joined(left, right, 7))


def to_msg_id(given: UUID) -> str:
    """Return a UUID as 35 capital letters and digits."""
    text, rest = "", given.int
    while rest:
        rest, digit = divmod(rest, 36)
        text = _BASE36[digit] + text
    return text.rjust(_MSG_ID_LENGTH, "0")


def from_msg_id(text: str) -> UUID | None:
    """Return the UUID in such a text; None for any other."""
    if len(text) != _MSG_ID_LENGTH or set(text) - set(_BASE36):
        return None
    value = int(text, 36)
    return UUID(int=value) if value < 1 << 128 else None


# Cached: every payment of a merchant has references of all kinds.
@lru_cache(maxsize=4096)
def _keys(merchant_id: str, kind: str) -> tuple[bytes, ...]:
    return tuple(sha256(_NAMESPACE + f"{merchant_id}/{kind}/{turn}".encode()).digest() for turn in range(_ROUNDS))


def _mix(key: bytes, half: int) -> int:
    return int.from_bytes(sha256(key + half.to_bytes(8, "big")).digest()[:8], "big") & _HALF


def _int(id_: str) -> int:
    return int(id_.replace("-", ""), 16)  # four times as fast as UUID(id_).int, and there are many


def _halves(value: int) -> tuple[int, int]:
    """Return the 122 bits of a UUID that are not its version and variant, in two parts."""
    bits = (value >> 80) << 74 | (value >> 64 & 0xFFF) << 62 | value & (1 << 62) - 1
    return bits >> 61, bits & _HALF


def _joined(left: int, right: int, version: int) -> UUID:
    bits = left << 61 | right
    value = (bits >> 74) << 80 | version << 76 | (bits >> 62 & 0xFFF) << 64 | 0b10 << 62 | bits & (1 << 62) - 1
    return UUID(int=value)
