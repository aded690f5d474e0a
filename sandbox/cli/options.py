"""Options and arguments that several commands share, with their completion."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, get_args
from urllib.parse import quote

import typer

from sandbox.domain.enumerations import Method

Limit = Annotated[int, typer.Option("--limit", min=1, max=100, help="The maximum number of results.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="The next_cursor of the previous page.")]
OnlyMethod = Annotated[Method | None, typer.Option("--method", help="Only calls with this method.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def identifier(help: str) -> Any:
    """Return an argument for an id that becomes part of a URL's path."""
    return typer.Argument(help=help, callback=path_part)


def path_part(value: str | None) -> str | None:
    """Quote an id for a URL's path. Raises BadParameter if it would change the path."""
    if value is None:
        return None
    if value in ("", ".", ".."):
        raise typer.BadParameter(f"{value!r} is not an id.")
    return quote(value, safe="")


def multi_choice_option(flag: str, choices: Any, help: str) -> Any:
    """Return an option for values of a Literal, comma-separated or repeated. Case is ignored."""
    values: tuple[str, ...] = get_args(choices)

    def check(given: list[str] | None) -> list[str]:
        return [one_of(part, values) for text in given or [] for part in text.split(",")]

    return typer.Option(
        flag, help=f"{help} Comma-separated.", metavar=" | ".join(values), callback=check, autocompletion=completion(values)
    )


def one_of(value: str, choices: Sequence[str]) -> str:
    """Return the choice that equals a value, ignoring case. Raises BadParameter if there is none."""
    found = next((choice for choice in choices if choice.lower() == value.strip().lower()), None)
    if found is None:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}.")
    return found


def completion(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a completion for the last of several comma-separated values."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{choice}" for choice in choices if choice.lower().startswith(last.lower())]

    return complete


def pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """Parse KEY=VALUE pairs. Raises BadParameter without quoting the pair, because it may be a secret."""
    for pair in given or []:
        if "=" not in pair:
            raise typer.BadParameter(f"{option} must be KEY=VALUE.")
    return dict(pair.partition("=")[::2] for pair in given or [])


def upper(value: str | None) -> str | None:
    """Return a code as the API writes it."""
    return None if value is None else value.upper()


def event_types(given: list[str] | str | None) -> list[str]:
    """Return comma-separated event types and patterns as the API writes them."""
    texts = [given] if isinstance(given, str) else given or []
    return [part.strip().lower() for text in texts for part in text.split(",")]


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


# These completions read the sandbox's files, so they import modules only when a shell requests a completion.


def _banks(incomplete: str) -> list[tuple[str, str]]:
    from sandbox.payouts.directory.loader import load_directory

    return [(bank.code, bank.name) for bank in load_directory().banks if bank.code.startswith(incomplete.upper())]


def _wallets(incomplete: str) -> list[tuple[str, str]]:
    from sandbox.payouts.directory.loader import load_directory

    return [(wallet.code, wallet.name) for wallet in load_directory().wallets if wallet.code.startswith(incomplete.upper())]


def _failure_codes(incomplete: str) -> list[tuple[str, str]]:
    from sandbox.domain.failure_codes import FAILURES

    return [(code, reason) for code, reason in FAILURES.items() if code.startswith(incomplete.upper())]


def _scenarios(incomplete: str) -> list[str]:
    from sandbox.payouts.scenarios.builtin import load_catalogue

    return [scenario.name for scenario in load_catalogue().scenarios if scenario.name.startswith(incomplete.lower())]


def _failure_code(value: str | None) -> str | None:
    from sandbox.domain.failure_codes import FAILURES

    return value if value is None or value.upper() not in FAILURES else value.upper()


def _scenario(value: str | None) -> str | None:
    return value if value is None or value.lower() not in _scenarios(value) else value.lower()


BY_NAME: Final[Mapping[str, Mapping[str, Any]]] = {
    "bank_code": {"autocompletion": _banks, "callback": upper},
    "wallet_code": {"autocompletion": _wallets, "callback": upper},
    "failure_code": {"autocompletion": _failure_codes, "callback": _failure_code},
}
"""Parameter or field of the API → the settings of every option for it. The API also accepts codes that are not listed."""
Bank = Annotated[str | None, typer.Option("--bank", help="The bank's code. Default: HBL.", **BY_NAME["bank_code"])]
Wallet = Annotated[
    str | None,
    typer.Option("--wallet", help="The wallet provider's code, instead of a bank.", **BY_NAME["wallet_code"]),
]
FailureCode = Annotated[
    str | None,
    typer.Option(
        "--failure-code",
        help="Why it failed: a code such as BANK_REJECTED, or one of your own.",
        **BY_NAME["failure_code"],
    ),
]
ScenarioName = Annotated[
    str | None,
    typer.Option("--scenario", help="The name of the scenario to follow.", autocompletion=_scenarios, callback=_scenario),
]


def destination(account: str | None, bank: str | None, wallet: str | None) -> dict[str, str] | None:
    """Return a destination; None if no account is given. Raises BadParameter if the options contradict each other."""
    if account is None:
        if bank or wallet:
            raise typer.BadParameter("--bank and --wallet need --account.")
        return None
    if bank and wallet:
        raise typer.BadParameter("Give --bank or --wallet, not both.")
    codes = {"dest_type": "WALLET", "wallet_code": wallet} if wallet else {"dest_type": "BANK", "bank_code": bank or "HBL"}
    return {**codes, "account_number": account}
