"""The body of a request that creates a merchant, and its validation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import msgspec

from sandbox.domain.clock_target import moment
from sandbox.domain.errors import Problem, invalid, invalid_fields
from sandbox.domain.fields import AmountOrZero, Name, Time, Url, about
from sandbox.http.body import amount_of
from sandbox.http.body_errors import FieldProblem

MAX_SEED = 2**63 - 1
Seed = Annotated[
    int | float | None,
    msgspec.Meta(
        description="Make ids, jitter and faults repeatable.",
        extra={"must": f"a whole number from 0 to {MAX_SEED}"},
        extra_json_schema={"type": ["integer", "null"], "minimum": 0, "maximum": MAX_SEED},
    ),
]
T = TypeVar("T")


class CreateMerchantBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /merchants`."""

    name: Annotated[Name, about("The merchant's name.")]
    opening_balance: AmountOrZero = msgspec.Raw(b"null")
    webhook_url: Url | None = None
    seed: Seed = None
    frozen_at: Annotated[Time | None, about("Freeze its clock at this time.")] = None


@dataclass(frozen=True, slots=True)
class MerchantSpec:
    """A merchant to be created. `merchant_id` and `api_key` are for well-known development merchants."""

    name: str
    opening_balance: Decimal | None = None
    webhook_url: str | None = None
    seed: int | None = None
    frozen_at: datetime | None = None
    """The time, in UTC, at which the new merchant's clock is frozen; None for a running clock."""
    merchant_id: str | None = None
    api_key: str | None = None


def _seed(seed: float | None) -> int | None:
    """Return the seed as an int; JSON can write it as 5.0. Raises VALIDATION_ERROR unless it is a whole number in range."""
    if seed is None:
        return None
    if not 0 <= seed <= MAX_SEED or seed != int(seed):
        raise invalid("seed", f"must be a whole number from 0 to {MAX_SEED}")
    return int(seed)


def spec_of(body: CreateMerchantBody, webhook_url_error: Callable[[str], str | None]) -> MerchantSpec:
    """Convert a body to a MerchantSpec. Raises VALIDATION_ERROR with every invalid field."""
    errors: list[FieldProblem] = []
    amount = body.opening_balance
    balance = None
    if bytes(amount) != b"null":
        balance = _read(lambda: amount_of(amount, "opening_balance", zero=True), errors)
    seed, frozen_at, more = validate_optional(msgspec.structs.asdict(body), webhook_url_error)
    errors += more
    if errors:
        raise invalid_fields(errors)
    return MerchantSpec(body.name, balance or None, body.webhook_url, seed, frozen_at)


def validate_optional(
    fields: Mapping[str, Any], webhook_url_error: Callable[[str], str | None]
) -> tuple[int | None, datetime | None, list[FieldProblem]]:
    """Return the seed, the time at which the clock is frozen, and the errors in these and in the URL. All are optional."""
    errors: list[FieldProblem] = []
    seed = _read(lambda: _seed(fields.get("seed")), errors)
    at, url = fields.get("frozen_at"), fields.get("webhook_url")
    # The limits are those of freezing the clock of a merchant without activity: after 1970, at most ten years ahead.
    frozen_at = None
    if at is not None:
        frozen_at = _read(lambda: moment(at, "frozen_at", may_be_past=True)(datetime.now(UTC)), errors)
    url_error = None if url is None else webhook_url_error(url)
    errors += [] if url_error is None else [("webhook_url", url_error)]
    return seed, frozen_at, errors


def _read(read: Callable[[], T], errors: list[FieldProblem]) -> T | None:
    try:
        return read()
    except Problem as problem:
        errors.extend(problem.errors)
        return None
