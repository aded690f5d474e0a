"""What the methods of a world return."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from psp_sandbox.testing.options import UsageError

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*")
_TIMES: Final = ("created_at", "updated_at", "processed_at")


@dataclass(frozen=True, slots=True)
class Payout:
    """A payout, as it was when it was read."""

    id: str
    merchant_reference: str
    amount: Decimal
    currency: str
    status: str
    dest_type: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str
    account_title: str | None
    scenario: str | None
    failure_code: str | None
    failure_reason: str | None
    psp_reference: str | None
    attempts: int
    version: int
    metadata: Mapping[str, str]
    user_id: str | None
    created_at: datetime
    updated_at: datetime
    processed_at: datetime | None

    @classmethod
    def of(cls, shown: Mapping[str, Any]) -> "Payout":
        """Return the payout in a response."""
        found: dict[str, Any] = {name: shown.get(name) for name in cls.__dataclass_fields__}
        found |= {name: datetime.fromisoformat(at) for name in _TIMES if (at := shown.get(name))}
        found["amount"] = Decimal(shown["amount"])
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Balance:
    """A merchant's balance."""

    available: Decimal
    locked: Decimal
    total: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A step of a payout or an attempt of a delivery that fell due. What does not apply is None."""

    kind: str
    """`payout_step` or `delivery_attempt`."""
    at: datetime
    payout_id: str | None = None
    before: str | None = None
    after: str | None = None
    delivery_id: str | None = None
    attempt: int | None = None
    outcome: str | None = None
    status: int | None = None

    def __str__(self) -> str:
        if self.kind == "payout_step":
            return f"{self.before} → {self.after}"
        return f"delivery attempt {self.attempt}: {self.outcome} ({self.status or 'no answer'})"

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> "Ran":
        """Return an item of a response's `ran`."""
        known = ("payout_id", "delivery_id", "attempt", "outcome", "status")
        at = datetime.fromisoformat(item["at"])
        return cls(item["kind"], at, before=item.get("from"), after=item.get("to"), **{name: item.get(name) for name in known})


@dataclass(frozen=True, slots=True)
class Advanced:
    """What an advance of the clock did, in order. At most 1,000 items per request are listed; `steps` counts all."""

    now: datetime
    steps: int
    ran: tuple[Ran, ...]

    @property
    def changes(self) -> list[tuple[str | None, str | None]]:
        """The payouts' changes of status, as (from, to)."""
        return [(one.before, one.after) for one in self.ran if one.kind == "payout_step"]


def seconds_of(duration: Any) -> float:
    """Return a duration in seconds: from a number of seconds, a timedelta, or text such as "60s" or "1h 30m".

    Raises UsageError.
    """
    seconds: float | None = None
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        seconds = float(duration)
    elif isinstance(duration, str) and duration.strip():
        parts = list(_DURATION.finditer(duration.strip()))
        if "".join(part.group() for part in parts) == duration.strip():
            seconds = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    if seconds is None or not 0 <= seconds < float("inf"):
        raise UsageError(
            f'{duration!r} is not a duration. Write "60s", "5m", "2h", "1d" or "1h 30m", a number of seconds or a timedelta.'
        )
    return seconds
