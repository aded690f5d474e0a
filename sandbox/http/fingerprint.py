"""Compute a request's fingerprint. Two requests with the same idempotency key must have the same fingerprint. Pure.

It covers the method, the path, the query and the meaning of the body, as the client sent it and not as it was decoded, so that
new fields and defaults change no fingerprint. Stored fingerprints must stay valid: a retry after an upgrade compares with
them. tests/test_idempotency.py has examples that must not change.
"""

import hashlib
from decimal import Decimal
from typing import Any, Final

import msgspec

_MAX_INTEGER_DIGITS: Final = 18
"""Whole numbers of up to this many digits are written without an exponent, as the decoder's `int` would be."""


def fingerprint(method: str, path: str, query: bytes, body: bytes) -> bytes:
    """Return the SHA-256 of a request with a JSON body, ignoring field order, white space and the spelling of numbers.

    No body means `{}`, whether or not the operation has one. A body that is not JSON is compared byte by byte. Such a request
    is refused, and nothing is stored.
    """
    return digest(method, path, query, _canonical(body or b"{}"))


def digest(method: str, path: str, query: bytes, content: bytes) -> bytes:
    """Return the SHA-256 of a request whose body is compared byte by byte, such as the digest of an uploaded file."""
    return hashlib.sha256(f"{method} {path}?".encode() + query + b"\n" + content).digest()


def _canonical(body: bytes) -> bytes:
    try:
        return _encode(_decode(body))
    except (ValueError, ArithmeticError, RecursionError, OverflowError):
        return body


def _number(text: str) -> Any:
    """Return the canonical form of a number with a fraction or exponent. 1.50 and 1.5 have the same, as do 1.5e3 and 1500."""
    sign, digits, exponent = Decimal(text).as_tuple()
    shown = "".join(map(str, digits)).lstrip("0")
    whole = shown.rstrip("0")
    if not whole:
        return 0
    assert isinstance(exponent, int)  # JSON has no NaN and no infinity
    exponent += len(shown) - len(whole)
    if exponent >= 0 and len(whole) + exponent <= _MAX_INTEGER_DIGITS:
        return (-1 if sign else 1) * int(whole) * 10**exponent
    # Not a Decimal, which msgspec would write as a string: "1.5" and 1.5 are different values.
    return msgspec.Raw(f"{'-' if sign else ''}{whole}e{exponent}".encode())


_decode: Final = msgspec.json.Decoder(float_hook=_number).decode
_encode: Final = msgspec.json.Encoder(order="sorted").encode
