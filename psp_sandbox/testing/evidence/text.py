"""Text from tests and applications, made safe to show."""

import unicodedata
from typing import Final

LIMIT: Final = 2000
"""The most characters of one text that a page shows."""
_KEPT: Final = "\n\t"
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that cannot be seen, or that change how the others are shown, such as the right-to-left override."""
_JOINERS: Final = "\u200c\u200d"
"""Urdu, for example, is not readable without them."""


def clean(text: str, limit: int = LIMIT) -> str:
    """Return a text whose invisible characters are replaced by U+FFFD, cut at a limit. It is valid in XML 1.0."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(c if c in _KEPT or c in _JOINERS or unicodedata.category(c) not in _HIDDEN else "\ufffd" for c in cut)
