"""Shared by the commands of `psp bench`: their options, the progress bar, and what they print."""

import inspect
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.app import App
from sandbox.cli.failures import check_failed, not_met, refused

if TYPE_CHECKING:
    from sandbox.cli.benches.report import ProgressBar
    from sandbox.cli.benches.result import Result

OpenBench = partial[Any]
"""Opens a bench with its options. Its caller adds the sandbox and the progress."""


Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON and nothing else.")]


def _output_options(
    as_json: Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the figures and a description of the machine to this JSON file.")
    ] = None,
) -> None:
    """The last options of every bench."""


def _sandbox_options(
    ready_file: Annotated[
        Path | None,
        typer.Option("--ready-file", help="Measure the running sandbox that wrote this file, instead of starting one."),
    ] = None,
    api_processes: Annotated[
        int, typer.Option("--api-processes", min=1, max=64, help="API processes of the sandbox that it starts.")
    ] = 1,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, help="Worker processes of the sandbox that it starts.")
    ] = 1,
) -> None:
    """The options of every bench that measures one sandbox."""


_SANDBOX_OPTIONS = tuple(inspect.signature(_sandbox_options).parameters)
SHARED_OPTIONS = (*_SANDBOX_OPTIONS, *inspect.signature(_output_options).parameters)


def add_bench(app: App, name: str, *, on_sandbox: bool = True) -> Callable[[Callable[..., OpenBench]], Callable[..., None]]:
    """Return a decorator that adds a command for a bench: one that measures a sandbox, or one that starts its own.

    The function takes the bench's own options, and returns how to open the bench.
    """

    def decorate(function: Callable[..., OpenBench]) -> Callable[..., None]:
        @wraps(function)
        def command(as_json: bool, output: Path | None, **options: Any) -> None:
            sandbox = {option: options.pop(option) for option in _SANDBOX_OPTIONS if on_sandbox}
            open_bench = function(**options)
            with show_progress(as_json) as progress:
                from sandbox.cli.benches.stack import open_stack

                with open_stack(**sandbox) if on_sandbox else nullcontext() as stack:
                    target = {"stack": stack} if on_sandbox else {}
                    result = open_bench(**target, progress=progress).run()
            print_result(result, as_json, output)

        shared = (_sandbox_options, _output_options) if on_sandbox else (_output_options,)
        parameters = [option for source in (function, *shared) for option in inspect.signature(source).parameters.values()]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads the options from it
        command.__annotations__ = {option.name: option.annotation for option in parameters}
        return app.command(name)(command)  # type: ignore[no-any-return]  # typer returns the function

    return decorate


@contextmanager
def show_progress(as_json: bool) -> "Iterator[ProgressBar]":
    """Show the progress of a measurement. A BenchError ends the command with code 1."""
    from sandbox.cli.benches.report import ProgressBar
    from sandbox.cli.benches.stack import BenchError

    progress = ProgressBar(sys.stderr.isatty() and not as_json)
    try:
        with progress.bar:
            yield progress
    except BenchError as error:
        raise refused(f"psp bench: {error}") from None


def print_result(result: "Result", as_json: bool, output: Path | None = None) -> None:
    """Print a result as text or JSON, and write it to the file `output`.

    Raises Failure if the file cannot be written, a limit is exceeded, or something did not arrive in time.
    """
    from rich.console import Console

    from sandbox.cli.benches import report

    command = shlex.join(["psp", *sys.argv[1:]])
    if output is not None:
        try:
            output.write_text(json.dumps(report.details(result, command), indent=2) + "\n", "utf-8")
        except OSError as error:
            raise refused(f"psp bench: {output} cannot be written ({error.strerror}).") from None
    if as_json:
        typer.echo(json.dumps(report.to_json(result)))
    else:
        Console().print(report.render(result, command))
    if result.exceeded:
        count = len(result.exceeded)
        raise check_failed(f"psp bench: {count} {'figures exceed their limits' if count > 1 else 'figure exceeds its limit'}.")
    if result.missing:
        raise not_met(f"{result.missing} did not arrive in time.")
