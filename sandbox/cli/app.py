"""Base classes of all commands: they format the help, and print failures."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.exceptions import TyperException
from typer.models import ParameterInfo

from sandbox.cli.failures import EXIT_CODES, ExitCode, Failure, usage_error
from sandbox.cli.global_options import split

T = TypeVar("T", bound=Callable[[Any], Any])
_OTHER_NAMES: Final = {
    "show": "get", "view": "get", "describe": "get", "ls": "list", "all": "list", "add": "create", "new": "create",
    "create": "add", "remove": "delete", "rm": "delete", "revoke": "delete", "delete": "revoke", "change": "update",
    "edit": "update", "set": "update", "update": "change", "retry": "resend", "replay": "resend", "get": "show",
}  # fmt: skip
"""A command's name in other tools → its name here, if the group has such a command."""
_KINDS: Final[dict[object, str]] = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}


class PspCommand(TyperCommand):
    """A command whose help lists the choices of each parameter, and shows no Python types."""

    def __init__(self, *args: Any, help: str | None = None, **options: Any) -> None:
        # Join the lines of each paragraph: docstrings are wrapped for the source code, not for the terminal.
        paragraphs = inspect.cleandoc(help or "").split("\n\n")
        super().__init__(*args, help="\n\n".join(" ".join(text.split()) for text in paragraphs), **options)

    def get_params(self, ctx: Any) -> list[Any]:
        return _labelled(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and return the remaining ones. Raises TyperException if one is wrong."""
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            # Typer parses choices with Pydantic, which adds this prefix to the message.
            error.message = error.message.replace("Value error, ", "", 1)
            raise


class Group(TyperGroup):
    """A command group whose help is formatted like `PspCommand`'s. `show`, if present, is the default: `psp balance --json`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _labelled(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the group's own arguments, and return the rest: the command's name and its arguments.

        Global options before the name belong to the command.
        """
        options, rest = split(args)
        is_named = bool(rest) and (not rest[0].startswith("-") or rest[0] in ctx.help_option_names)
        if "show" in self.commands and not is_named and not ctx.resilient_parsing:
            return super().parse_args(ctx, ["show", *args])
        if options and not rest and not ctx.resilient_parsing:
            ctx.fail(f"Missing command. Known: {', '.join(self.commands)}.")
        is_command = bool(rest) and not rest[0].startswith("-")
        return super().parse_args(ctx, [rest[0], *options, *rest[1:]] if is_command else rest)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name. Raises TyperException with a suggestion if there is none."""
        try:
            return super().resolve_command(ctx, args)
        except TyperException as error:
            if self.get_command(ctx, args[0]) is None and "Did you mean" not in error.message:
                other = _OTHER_NAMES.get(args[0].lower(), args[0].lower())
                known = f"Did you mean {other!r}?" if other in self.commands else f"Known: {', '.join(self.commands)}."
                error.message = f"{error.message} {known}"
            raise


class Psp(Group):
    """The whole command line. It exits with the documented exit codes, and prints failures as JSON with --json."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run a command and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        as_json = "--json" in own
        options["standalone_mode"] = not as_json
        try:
            # In standalone mode, typer prints usage errors as text. Otherwise it raises them, and returns the exit code.
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


@dataclass(frozen=True, slots=True)
class Shown:
    """How a command shows the response of its call: as this text, or as an Output that may also be a failure.

    `waiting` is shown on a terminal while the call lasts. `help` is added to the command's help.
    """

    text: Callable[[Any], Any]
    waiting: str = ""
    help: str = ""


class App(typer.Typer):
    """A group of commands whose help documents the exit codes."""

    def __init__(self, help: str, *, root: bool = False, **options: Any) -> None:
        super().__init__(help=help, no_args_is_help=True, cls=Psp if root else Group, **options)
        self.shown: dict[str, Shown] = {}
        """Derived command (`derived.py`) → how it shows its response; by default a table, or a line for each field."""

    def shows(self, *names: str, waiting: str = "", help: str = "") -> Callable[[T], T]:
        """Return a decorator for the function that shows the responses of these derived commands."""

        def decorate(text: T) -> T:
            self.shown.update(dict.fromkeys(names, Shown(text, waiting, help)))
            return text

        return decorate

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Return a decorator that adds a command. By default, `epilog` lists the exit codes.

        The case of its choices is ignored.
        """
        options = dict[str, Any](cls=PspCommand, epilog=EXIT_CODES) | options
        add = super().command(name, **options)

        def decorate(function: Any) -> Any:
            for annotation in get_type_hints(function, include_extras=True).values():
                for extra in getattr(annotation, "__metadata__", ()):
                    if isinstance(extra, ParameterInfo):
                        extra.case_sensitive = False
            return add(function)

        return decorate


def _labelled(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if isinstance(parameter, TyperOption | TyperArgument):
            # Typer has no setting for this label. A metavar works for options, but for arguments it replaces the name.
            parameter.display_type_rich = partial(_label, parameter)  # type: ignore[method-assign]  # typer calls it
    return parameters


def _label(parameter: TyperOption | TyperArgument, ctx: object) -> str:
    """Return the label for a parameter's values in the help: its choices, or the kind of value."""
    descriptor = parameter.type_descriptor
    if isinstance(parameter, TyperOption) and (parameter.is_flag or parameter.metavar is not None):
        return parameter.metavar or ""
    if descriptor.choices is not None:
        # Spaces let a long list wrap between words.
        return " | ".join(map(str, descriptor.choices))
    if isinstance(parameter, TyperArgument):
        return ""
    kind = descriptor.annotation
    for item in getattr(kind, "__args__", ()):
        kind = item
    return _KINDS.get(kind, "TEXT")
