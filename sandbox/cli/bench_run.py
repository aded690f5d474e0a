"""Shared by the commands of `psp bench`: run a measurement with a progress bar, and print the result."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from sandbox.cli.failures import refused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sandbox.bench.create import Progress
    from sandbox.bench.stack import Stack

Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON and nothing else.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="Write all measurements and a description of the machine to this JSON file."),
]
ResultT = TypeVar("ResultT", covariant=True)


class _Bench(Protocol[ResultT]):
    """A bench. `steps` is the total number of steps that it reports as progress."""

    @property
    def steps(self) -> int: ...

    def run(self) -> ResultT: ...


def measure(
    open_bench: "Callable[[Stack, Progress], _Bench[ResultT]]",
    ready_file: Path | None,
    api_processes: int,
    workers: int,
    as_json: bool,
) -> ResultT:
    """Run a bench on the ready file's sandbox, or on a fresh one. A failure ends the command with code 1."""
    from sandbox.bench.stack import open_stack

    with show_progress(as_json) as shown, open_stack(ready_file, api_processes, workers) as stack:
        bench = open_bench(stack, shown.advance)
        shown.start("starting", bench.steps)
        return bench.run()


class _ProgressBar:
    """A progress bar on standard error, unless it is hidden."""

    def __init__(self, visible: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not visible,
            transient=True,
        )
        self._task = self.bar.add_task("", total=None)

    def start(self, what: str, steps: int | None) -> None:
        self.bar.update(self._task, description=what, total=steps)

    def advance(self, what: str, done: int) -> None:
        self.bar.update(self._task, description=what, advance=done)


@contextmanager
def show_progress(as_json: bool) -> "Iterator[_ProgressBar]":
    """Show the progress of a measurement. A BenchError ends the command with code 1."""
    from sandbox.bench.stack import BenchError

    shown = _ProgressBar(sys.stderr.isatty() and not as_json)
    try:
        with shown.bar:
            shown.start("starting", None)
            yield shown
    except BenchError as error:
        raise refused(f"psp bench: {error}") from None


def print_result(
    figures: dict[str, Any],
    details: dict[str, Any],
    render: "Callable[[Any, str], RenderableType]",
    result: object,
    as_json: bool,
    output: Path | None,
) -> None:
    """Print the result as text or JSON, and write `details` to the file `output`. Raises Failure if that fails."""
    from rich.console import Console

    command = shlex.join(["psp", *sys.argv[1:]])
    if output is not None:
        try:
            output.write_text(json.dumps(details | {"command": command}, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise refused(f"psp bench: {output} cannot be written ({error.strerror}).") from None
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        Console().print(render(result, command))
