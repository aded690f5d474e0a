"""The options that may also come before a command's name: `psp --url URL payouts list`."""

from collections.abc import Sequence
from typing import Final

_WITH_VALUE: Final = ("--url", "--api-key", "--admin-key", "--ready-file")
GLOBAL_OPTIONS: Final = (*_WITH_VALUE, "--json")


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the global options that come first, and the arguments after them."""
    position = 0
    while position < len(arguments) and arguments[position].partition("=")[0] in GLOBAL_OPTIONS:
        position += 2 if arguments[position] in _WITH_VALUE else 1
    return list(arguments[:position]), list(arguments[position:])


def command_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the leading global options behind the name that follows them."""
    options, rest = split(arguments)
    return [*rest[:1], *options, *rest[1:]]
