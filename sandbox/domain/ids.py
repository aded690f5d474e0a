"""Identifiers: UUIDv7 as text. Pure: time, counter and random bits are passed in."""

import re
from collections.abc import Callable
from typing import Final

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
LARGEST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"
SMALLEST_ID: Final = "00000000-0000-0000-0000-000000000000"


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID in its canonical lower-case form."""
    return _UUID.match(text) is not None


def uuid7(milliseconds: int, counter: int, random_42: int) -> str:
    """A UUIDv7 (RFC 9562, 5.7 and 6.2 method 1): 48 bits of Unix time, a 32-bit counter, 42 random bits.

    The counter makes ids of one merchant sort in the order they were made even while its clock stands still.
    """
    high = milliseconds << 16 | 0x7000 | counter >> 20 & 0xFFF
    low = 0x8000000000000000 | (counter & 0xFFFFF) << 42 | random_42
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def first_id_at(milliseconds: int) -> str:
    """The smallest id that a moment can have: ids ≥ it were made at or after that millisecond."""
    text = f"{max(0, min(milliseconds, 0xFFFFFFFFFFFF)):012x}"
    return f"{text[:8]}-{text[8:]}-0000-0000-000000000000"


class IdSource:
    """Ids of one unit of work, in rising order.

    `milliseconds` is the merchant's time, `counter` the first of the numbers that the unit reserved,
    `random_bits` a source of random bits (seeded for a seeded merchant).
    """

    __slots__ = ("_bits", "_counter", "_milliseconds")

    def __init__(self, milliseconds: int, counter: int, random_bits: Callable[[int], int]) -> None:
        self._milliseconds = milliseconds
        self._counter = counter
        self._bits = random_bits

    def begin_at(self, milliseconds: int) -> None:
        """Let the ids to come be of this time in place of the merchant's."""
        self._milliseconds = milliseconds

    def next(self) -> str:
        """The next id."""
        counter = self._counter
        self._counter = counter + 1
        return uuid7(self._milliseconds, counter, self._bits(42))

    def random_bytes(self, count: int) -> bytes:
        """Random bytes from the same source: a seeded merchant's secrets follow from its seed."""
        return self._bits(8 * count).to_bytes(count, "big")
