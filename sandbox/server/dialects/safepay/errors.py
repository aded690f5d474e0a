"""Errors as Safepay writes them: enveloped for 401 and 500, flat for all others."""

from typing import Final

import msgspec

from sandbox.domain.errors import CODES
from sandbox.server.dialects.dialect import Refusal
from sandbox.server.dialects.safepay.mapping import MAPPING, WireError, WireProblem

_encode: Final = msgspec.json.Encoder().encode
VERSION: Final = "v1"


class FlatError(msgspec.Struct):
    """An error of most statuses."""

    code: str
    message: str


class EnvelopedError(msgspec.Struct):
    """An error of 401 and 500."""

    api_version: str
    error: FlatError


def refuse(refusal: Refusal) -> tuple[int, bytes]:
    """Return the status and body of a refusal. Of the native text, it keeps only the errors of the request's fields."""
    problem = MAPPING.problems.get(refusal.code, WireProblem(400))
    # A fault can answer with any status, and keeps it.
    status = problem.status if refusal.status == _native_status(refusal) else refusal.status
    error = _error_of(status)
    said = "; ".join(f"{field} {message}" for field, message in refusal.errors)
    flat = FlatError(error.code, said or problem.message or error.message)
    return status, _encode(EnvelopedError(VERSION, flat) if error.enveloped else flat)


def _native_status(refusal: Refusal) -> int:
    return CODES[refusal.code].status if refusal.code in CODES else refusal.status


def _error_of(status: int) -> WireError:
    found = MAPPING.errors.get(status)
    return found if found is not None else MAPPING.errors[500 if status >= 500 else 400]
