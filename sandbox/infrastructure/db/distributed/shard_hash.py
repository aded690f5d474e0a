"""The hash by which PostgreSQL, and so Citus, assigns a UUID to a shard. Pure."""

from functools import lru_cache
from typing import Final

_MASK: Final = 0xFFFFFFFF


@lru_cache(maxsize=65_536)
def shard_hash(merchant_id: str) -> int:
    """Return PostgreSQL's `uuid_hash` of an id: a signed 32-bit number, stable since PostgreSQL 8.4.

    It is Bob Jenkins's lookup3 for a key of 16 bytes (`hash_bytes` in PostgreSQL's src/common/hashfn.c), on a little-endian
    server. Raises ValueError if the id is not a UUID.
    """
    key = bytes.fromhex(merchant_id.replace("-", ""))
    if len(key) != 16:
        raise ValueError(f"{merchant_id!r} is not a UUID")
    words = [int.from_bytes(key[at : at + 4], "little") for at in range(0, 16, 4)]
    initial = (0x9E3779B9 + len(key) + 3923095) & _MASK
    a, b, c = ((initial + word) & _MASK for word in words[:3])
    # mix
    a = ((a - c) ^ _rotate(c, 4)) & _MASK
    c = (c + b) & _MASK
    b = ((b - a) ^ _rotate(a, 6)) & _MASK
    a = (a + c) & _MASK
    c = ((c - b) ^ _rotate(b, 8)) & _MASK
    b = (b + a) & _MASK
    a = ((a - c) ^ _rotate(c, 16)) & _MASK
    c = (c + b) & _MASK
    b = ((b - a) ^ _rotate(a, 19)) & _MASK
    a = (a + c) & _MASK
    c = ((c - b) ^ _rotate(b, 4)) & _MASK
    b = (b + a) & _MASK
    # the last four bytes, then final
    a = (a + words[3]) & _MASK
    c = ((c ^ b) - _rotate(b, 14)) & _MASK
    a = ((a ^ c) - _rotate(c, 11)) & _MASK
    b = ((b ^ a) - _rotate(a, 25)) & _MASK
    c = ((c ^ b) - _rotate(b, 16)) & _MASK
    a = ((a ^ c) - _rotate(c, 4)) & _MASK
    b = ((b ^ a) - _rotate(a, 14)) & _MASK
    c = ((c ^ b) - _rotate(b, 24)) & _MASK
    return c - (1 << 32) if c >> 31 else c


def _rotate(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & _MASK
