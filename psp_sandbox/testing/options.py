"""The arguments of `@pytest.mark.psp(...)`."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

_MAX_SEED: Final = 2**63 - 1


class UsageError(Exception):
    """The plugin was used in a wrong way. The message says how to use it."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a test's merchant is made, and what its teardown accepts."""

    name: str
    balance: Decimal
    seed: int
    frozen: bool
    frozen_at: datetime | None
    """The time at which the clock is frozen; None for the present."""
    allow_failed_deliveries: bool
    allow_unhit_faults: bool

    def body(self) -> dict[str, Any]:
        """Return the body of `POST /merchants`."""
        body: dict[str, Any] = {"name": self.name[:100], "seed": self.seed, "opening_balance": f"{self.balance:.2f}"}
        if self.frozen:
            body["frozen_at"] = wire_time(self.frozen_at or datetime.now(UTC))
        return body


_DEFAULTS: Final[Mapping[str, Any]] = {
    "balance": Decimal(1_000_000),
    "seed": None,
    "frozen": True,
    "name": None,
    "allow_failed_deliveries": False,
    "allow_unhit_faults": False,
}


def read_marks(marks: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]], node_id: str) -> Options:
    """Return the options from the arguments of a test's marks, the closest one last. Raises UsageError."""
    given: dict[str, Any] = dict(_DEFAULTS)
    for arguments, keywords in marks:
        if arguments:
            raise UsageError(f'@pytest.mark.psp takes keywords only, for example balance="100.00"; it got {arguments[0]!r}.')
        unknown = [name for name in keywords if name not in _DEFAULTS]
        if unknown:
            raise UsageError(f"@pytest.mark.psp has no {unknown[0]}=. It takes {', '.join(_DEFAULTS)}.")
        given.update(keywords)
    seed, frozen = given["seed"], given["frozen"]
    if seed is None:
        # Without a seed, runs would not repeat. Each test has a different one, so that the ids of two tests differ.
        seed = zlib.crc32(node_id.encode())
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _MAX_SEED:
        raise UsageError(f"@pytest.mark.psp(seed=...) must be a whole number from 0 to {_MAX_SEED}, not {seed!r}.")
    for name in ("allow_failed_deliveries", "allow_unhit_faults"):
        if not isinstance(given[name], bool):
            raise UsageError(f"@pytest.mark.psp({name}=...) must be True or False, not {given[name]!r}.")
    return Options(
        name=str(given["name"] or node_id[-100:]),
        balance=read_amount(given["balance"], "@pytest.mark.psp(balance=...)", zero=True),
        seed=seed,
        frozen=frozen is not False,
        frozen_at=None if isinstance(frozen, bool) else read_time(frozen, "@pytest.mark.psp(frozen=...)"),
        allow_failed_deliveries=given["allow_failed_deliveries"],
        allow_unhit_faults=given["allow_unhit_faults"],
    )


def read_amount(value: Any, name: str, *, zero: bool = False) -> Decimal:
    """Return an amount of money, given as a str, Decimal or int. Raises UsageError, for a float too: it is not exact."""
    if isinstance(value, float):
        raise UsageError(f'{name} is money, and a float is not exact: write "{value:.2f}" or Decimal("{value:.2f}") instead.')
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            raise InvalidOperation
        amount = Decimal(value)
        if not amount.is_finite() or amount != round(amount, 2) or amount < 0 or (amount == 0 and not zero):
            raise InvalidOperation
    except InvalidOperation:
        raise UsageError(f'{name} must be an amount with at most two places, such as "100.00", not {value!r}.') from None
    return amount


def read_time(value: Any, name: str) -> datetime:
    """Return a time with its zone, given as a datetime or in RFC 3339. Raises UsageError."""
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise UsageError(f'{name} must be True, False or a time such as "2030-01-01T00:00:00Z", not {value!r}.') from None
    if at.tzinfo is None:
        raise UsageError(f"{name} needs a time zone: {at.isoformat()}Z is UTC.")
    return at.astimezone(UTC)


def wire_time(at: datetime) -> str:
    """Return a time as the API writes it: RFC 3339, UTC, milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
