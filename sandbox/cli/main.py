"""The command `psp`: the list of its commands and groups. Those that only make one call are derived (`derived.py`)."""

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from sandbox.cli.app import App
from sandbox.cli.derived import add_derived
from sandbox.cli.global_options import GLOBAL_OPTIONS, command_first

_COMMANDS: Final = {
    "up": ("up", "up"),
    "run": ("run", "run"),
    "down": ("down", "down"),
    "new": ("new", "new"),
    "doctor": ("doctor", "doctor"),
    "distribute": ("distribute", "distribute"),
    "overview": ("overview", "overview"),
    "audit": ("audit", "audit"),
    "bulk-credit": ("bulk_credit", "bulk_credit"),
    "directory": ("directory", "directory"),
    "verify-account": ("directory", "verify_account"),
    "reset": ("snapshots", "reset"),
    "drain": ("clock", "drain"),
    "trigger": ("trigger", "trigger"),
    "listen": ("listen", "listen"),
    "certify": ("certify", "certify"),
    "explore": ("explore", "explore"),
    "mcp": ("mcp", "mcp"),
}
"""Name → module in this folder, function."""
_GROUPS: Final = {
    "payouts": "payouts",
    "balance": "The merchant's balance.",
    "users": "users",
    "sales": "sales",
    "endpoints": "endpoints",
    "deliveries": "deliveries",
    "events": "events",
    "receiver-tests": "certify",
    "requests": "requests",
    "clock": "clock",
    "scenarios": "scenarios",
    "faults": "faults",
    "snapshots": "snapshots",
    "world": "world_file",
    "merchants": "Merchants. Each has its own isolated data and clock. Needs the operator's key.",
    "keys": "The merchant's API keys. Needs an admin key.",
    "settings": "Show and change the merchant's settings.",
    "aggregator": "aggregator",
    "ipn": "ipn",
    "dialect": "dialect",
    "bench": "bench",
}
"""Name → module in this folder, whose `app` has commands; or the help of a group whose commands are all derived."""
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    # All arguments after the user's command belong to that command, with or without --. `run` has its own exit codes.
    "run": {"context_settings": {"allow_interspersed_args": False}, "epilog": None},
    "explore": {"context_settings": {"allow_interspersed_args": False}},
}


def create_app(arguments: Sequence[str] = ()) -> App:
    """Build the command line: with all commands or, to load faster, only with the one that `arguments` begin with."""
    first = arguments[0] if arguments else ""
    names = {first} if first in _COMMANDS or first in _GROUPS else {*_COMMANDS, *_GROUPS}
    app = App(
        "A payment service provider for tests: payouts, ledger, scenarios, signed webhooks.",
        root=True,
        name="psp",
        pretty_exceptions_show_locals=False,
        epilog=f"{', '.join(GLOBAL_OPTIONS)} may come before a command or after it.",
    )
    for name in filter(names.__contains__, _COMMANDS):
        app.command(name, **_OPTIONS.get(name, {}))(_load(*_COMMANDS[name]))
    for name in filter(names.__contains__, _GROUPS):
        app.add_typer(_group(name), name=name)
    app.callback()(_options)
    return app


def _group(name: str) -> App:
    module = _GROUPS[name]
    group: App = App(module) if module.endswith(".") else _load(module, "app")
    add_derived(group, name)
    return group


def _load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"sandbox.cli.{module}"), name)


def _print_version(is_given: bool) -> None:
    if is_given:
        from importlib.metadata import version  # imported here, because loading it takes longer than loading all commands

        typer.echo(f"psp {version('psp-sandbox')}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    # Set the name, because completion derives its environment variable from it.
    create_app(command_first(sys.argv[1:]))(prog_name="psp")


if __name__ == "__main__":
    main()
