"""What Safepay calls our states, events, problems, accounts and banks, from `mapping.toml`."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

import msgspec


class State(msgspec.Struct, frozen=True):
    """What a payout's state is for Safepay. `mapping.toml` explains the fields."""

    status: str
    logged: bool
    event: str
    documented: bool


class WireError(msgspec.Struct, frozen=True):
    """The body of the errors with an HTTP status."""

    code: str
    message: str
    enveloped: bool


class WireProblem(msgspec.Struct, frozen=True):
    """The HTTP status that a problem code becomes, and its message, if it has one of its own."""

    status: int
    message: str = ""


class Mapped(msgspec.Struct, frozen=True):
    """The whole file."""

    states: Mapping[str, State]
    errors: Mapping[int, WireError]
    problems: Mapping[str, WireProblem]
    documented: Mapping[str, list[str]]
    deliveries: Mapping[str, str]
    accounts: Mapping[str, list[str]]
    banks: Mapping[str, str]


MAPPING: Final = msgspec.convert(
    tomllib.loads(files(__package__).joinpath("mapping.toml").read_text("utf-8")), Mapped, strict=False
)
STATUSES: Final = MAPPING.documented["statuses"]


def is_change(previous: str | None, state: str) -> bool:
    """Return whether Safepay sees that a payout enters `state` from `previous`, not that the bank tries it again."""
    entered, left = MAPPING.states[state], None if previous is None else MAPPING.states[previous]
    return entered.logged and (left is None or left.logged or left.status != entered.status)


def native_statuses(status: str) -> list[str]:
    """Return the states that have this status."""
    return [name for name, state in MAPPING.states.items() if state.status == status]
