"""What all commands have in common: how their help looks, and how their failures are printed."""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.exceptions import TyperException

from sandbox.cli.failures import EXIT_CODES, ExitCode, Failure, usage_error

_KINDS: Final[dict[object, str]] = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}


class Command(TyperCommand):
    """A command whose help lists choices, and calls no flag a `<bool>`."""

    def __init__(self, *args: Any, help: str | None = None, **options: Any) -> None:
        # Paragraphs of docstrings are wrapped for who reads the code; a terminal has a width of its own.
        paragraphs = inspect.cleandoc(help or "").split("\n\n")
        super().__init__(*args, help="\n\n".join(" ".join(text.split()) for text in paragraphs), **options)

    def get_params(self, ctx: Any) -> list[Any]:
        return _labelled(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words left over. Raises TyperException if an option or argument is wrong."""
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            # Pydantic, with which typer reads choices, puts its name for the error before what is wrong.
            error.message = error.message.replace("Value error, ", "", 1)
            raise


class Group(TyperGroup):
    """Commands under one name, with such help. A group that has `show` shows without being told: `psp balance --json`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _labelled(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words left for the command, of which the first is its name."""
        is_named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        if "show" in self.commands and not is_named and not ctx.resilient_parsing:
            args = ["show", *args]
        return super().parse_args(ctx, args)


class Psp(Group):
    """The whole command line: ends with the documented exit codes, and with --json prints failures as JSON."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run a command and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        as_json = "--json" in own
        options["standalone_mode"] = not as_json
        try:
            # On its own, typer prints usage errors for people; else it leaves them to us, and returns the exit code.
            code = super().main(arguments, *rest, **options)
        except Failure as failure:
            failure.show(as_json=as_json)
            code = failure.exit_code
        except TyperException as error:
            usage_error(error.format_message()).show(as_json=True)
            code = ExitCode.USAGE
        except typer.Abort:
            code = ExitCode.REFUSED
        sys.exit(code)


class App(typer.Typer):
    """A group of commands, each of which documents the exit codes."""

    def __init__(self, help: str, *, root: bool = False, **options: Any) -> None:
        super().__init__(help=help, no_args_is_help=True, cls=Psp if root else Group, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Add a command. `epilog` is the exit codes unless given."""
        options = dict[str, Any](cls=Command, epilog=EXIT_CODES) | options
        return super().command(name, **options)


def _labelled(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if isinstance(parameter, TyperOption | TyperArgument):
            # Typer has no setting for it: an option's metavar would do, an argument's is its name.
            parameter.display_type_rich = partial(_label, parameter)  # type: ignore[method-assign]  # it asks the instance
    return parameters


def _label(parameter: TyperOption | TyperArgument, ctx: object) -> str:
    """What help says of a parameter's values beside its name: the choices, or what kind of value it is."""
    descriptor = parameter.type_descriptor
    if isinstance(parameter, TyperOption) and (parameter.is_flag or parameter.metavar is not None):
        return parameter.metavar or ""
    if descriptor.choices is not None:
        # With spaces a long list wraps between its words.
        return " | ".join(map(str, descriptor.choices))
    if isinstance(parameter, TyperArgument):
        return ""
    kind = descriptor.annotation
    for item in getattr(kind, "__args__", ()):
        kind = item
    return _KINDS.get(kind, "TEXT")
