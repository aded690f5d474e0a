"""Ids: UUIDv7 as text. Pure: time, counter and random bits are passed in."""

import re
from collections.abc import Callable
from typing import Final
from uuid import UUID

UUID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"
_UUID: Final = re.compile(UUID_PATTERN)
MAX_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"
MIN_ID: Final = "00000000-0000-0000-0000-000000000000"


def is_uuid(text: str) -> bool:
    """Return whether the text is a UUID in canonical lower-case form."""
    return _UUID.match(text) is not None


def range_of_prefix(text: str) -> tuple[str, str] | None:
    """Return the range [first, end) of the ids that begin with `text`, in either case, or None if no id can."""
    first, last = (text.lower() + id_[len(text) :] for id_ in (MIN_ID, MAX_ID))
    if not is_uuid(first):
        return None
    return first, str(UUID(int=min(UUID(last).int + 1, UUID(MAX_ID).int)))


def uuid7(milliseconds: int, counter: int, random_42: int) -> str:
    """Build a UUIDv7 (RFC 9562, 5.7 and 6.2 method 1): 48 bits of Unix time, a 32-bit counter, 42 random bits.

    The counter keeps a merchant's ids in order of creation even while its clock is frozen.
    """
    high = milliseconds << 16 | 0x7000 | counter >> 20 & 0xFFF
    low = 0x8000000000000000 | (counter & 0xFFFFF) << 42 | random_42
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def first_id_at(milliseconds: int) -> str:
    """Return the smallest possible id of a millisecond. Ids at or above it were created in that millisecond or later."""
    text = f"{max(0, min(milliseconds, 0xFFFFFFFFFFFF)):012x}"
    return f"{text[:8]}-{text[8:]}-0000-0000-000000000000"


class IdSource:
    """Generates the ids of one unit of work, in ascending order.

    `milliseconds` is the merchant's time, `counter` is the first number that the unit has reserved (later also `first`), and
    `random_bits` returns random bits (derived from the seed for a seeded merchant).
    """

    __slots__ = ("_bits", "_counter", "_milliseconds", "first")

    def __init__(self, milliseconds: int, counter: int, random_bits: Callable[[int], int]) -> None:
        self._milliseconds = milliseconds
        self._counter = counter
        self.first = counter
        self._bits = random_bits

    def begin_at(self, milliseconds: int) -> None:
        """Use this time for the following ids."""
        self._milliseconds = milliseconds

    def next(self) -> str:
        """Return the next id."""
        counter = self._counter
        self._counter = counter + 1
        return uuid7(self._milliseconds, counter, self._bits(42))

    def random_bytes(self, count: int) -> bytes:
        """Return random bytes from the same source, so that a seeded merchant's secrets are repeatable too."""
        return self._bits(8 * count).to_bytes(count, "big")
