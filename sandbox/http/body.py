"""Decode a request's body strictly: what a client got wrong is said, never guessed over."""

import json
import re
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from sandbox.errors import Problem, invalid
from sandbox.money import InvalidAmountError, parse_amount

T = TypeVar("T")

_PATH: Final = re.compile(r" - at `(?:key in )?\$(.*)`\Z", re.DOTALL)
_DEEPEST: Final = 32
_STRINGS: Final = re.compile(rb'"([^"]*)"(\s*:)?')


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """The body as the decoder's type. Raises MALFORMED_JSON or VALIDATION_ERROR, with the member at fault."""
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem("MALFORMED_JSON", f"The body is not JSON in UTF-8: {_shorten(str(error))}.") from None
    _refuse_hidden(body)
    return value


def amount_of(raw: msgspec.Raw, field: str = "amount") -> Decimal:
    """The amount that a member holds. Raises VALIDATION_ERROR."""
    try:
        return parse_amount(bytes(raw))
    except InvalidAmountError as error:
        raise invalid(field, str(error)) from None


def _invalid(message: str) -> Problem:
    match = _PATH.search(message)
    field = match[1].lstrip(".") if match else ""
    text = message[: match.start()] if match else message
    missing = re.search(r"(?:required|unknown) field `(.*)`", text, re.DOTALL)
    if missing:
        field = f"{field}.{missing[1]}".lstrip(".")
    if " matching regex " in text:
        text = "holds characters that are not allowed there"
    field, text = _shorten(field) or "body", _shorten(text)
    return Problem("VALIDATION_ERROR", f"{field}: {text}.", errors=[(field, text)])


def _refuse_hidden(body: bytes) -> None:
    """Refuse what the decoder lets pass: a member given twice, and the NUL that PostgreSQL's text cannot hold."""
    nul = b"\\u0000" in body
    if b"\\" not in body:
        # The usual body: its strings end where they seem to, and no two of its members have one name.
        names = [text for text, colon in _STRINGS.findall(body) if colon]
        if len(set(names)) == len(names):
            return

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(found)
        if len(members) < len(found):
            names = [name for name, _ in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise Problem("VALIDATION_ERROR", f"The member {twice!r} is given twice.", errors=[(twice, "is given twice")])
        if nul:
            for name, value in found:
                if "\0" in name or _has_nul(value):
                    shown = name.replace("\0", "\\u0000")
                    raise Problem(
                        "VALIDATION_ERROR",
                        f"{shown} holds a NUL character, which text may not.",
                        errors=[(shown, "may not hold a NUL character")],
                    )
        return members

    try:
        value = json.loads(body, object_pairs_hook=pairs)
    except RecursionError:
        raise Problem("MALFORMED_JSON", f"The body is nested deeper than {_DEEPEST} levels.") from None
    if nul and _has_nul(value):
        raise Problem("VALIDATION_ERROR", "The body holds a NUL character.", errors=[("body", "may not hold a NUL")])


def _has_nul(value: object) -> bool:
    if isinstance(value, list):
        return any(_has_nul(item) for item in value)
    return isinstance(value, str) and "\0" in value


def _shorten(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text[:200])
