"""What makes two requests under one idempotency key the same request: method, path, query and the body's meaning. Pure."""

import hashlib
from decimal import Decimal
from typing import Any, Final

import msgspec

_LONGEST_INTEGER: Final = 18
"""Digits up to which a whole number is written out: every one that an `int` of the decoder can be has its one form."""


def fingerprint(method: str, path: str, query: bytes, body: bytes) -> bytes:
    """SHA-256 of a request whose body is JSON; member order, white space and the spelling of numbers do not count.

    A body that is not JSON counts byte for byte: it will be refused, and nothing kept of it.
    """
    return digest(method, path, query, _canonical(body))


def digest(method: str, path: str, query: bytes, content: bytes) -> bytes:
    """SHA-256 of a request whose body counts byte for byte, such as the digest of an uploaded file."""
    return hashlib.sha256(f"{method} {path}?".encode() + query + b"\n" + content).digest()


def _canonical(body: bytes) -> bytes:
    try:
        return _encode(_decode(body))
    except (ValueError, ArithmeticError, RecursionError, OverflowError):
        return body


def _number(text: str) -> Any:
    """A number with a fraction or an exponent in the one form of its value: 1.50 is 1.5, and 1.5e3 is 1500."""
    sign, digits, exponent = Decimal(text).as_tuple()
    shown = "".join(map(str, digits)).lstrip("0")
    whole = shown.rstrip("0")
    if not whole:
        return 0
    assert isinstance(exponent, int)  # JSON has no NaN and no infinity
    exponent += len(shown) - len(whole)
    if exponent >= 0 and len(whole) + exponent <= _LONGEST_INTEGER:
        return (-1 if sign else 1) * int(whole) * 10**exponent
    # Not a Decimal, which would be written as a string: "1.5" is another value than 1.5.
    return msgspec.Raw(f"{'-' if sign else ''}{whole}e{exponent}".encode())


_decode: Final = msgspec.json.Decoder(float_hook=_number).decode
_encode: Final = msgspec.json.Encoder(order="sorted").encode
