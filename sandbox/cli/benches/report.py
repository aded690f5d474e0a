"""Show the result of any bench, as JSON and as text."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from sandbox.cli.benches.result import CPU, Figure, Progress, Result, Section


def to_json(result: Result) -> dict[str, Any]:
    """Return what `--json` prints: the medians, the rounds of repeated measurements, and what exceeds the limits."""
    shown: dict[str, Any] = {}
    for figure in result.figures:
        *path, name = figure.name.split("/")
        inner = shown
        for part in path:
            inner = inner.setdefault(part, {})
        inner[name] = figure.rounded(figure.median)
    rounds = {figure.name: list(map(figure.rounded, figure.rounds)) for figure in result.figures if len(figure.rounds) > 1}
    shown |= {"loop_s": result.machine.loop_s} | ({"rounds": rounds} if rounds else {})
    shown |= result.data
    return shown if result.exceeded is None else shown | {"exceeded": list(result.exceeded)}


def details(result: Result, command: str) -> dict[str, Any]:
    """Return what `--output` writes: the same, the machine and the command."""
    return to_json(result) | {"machine": asdict(result.machine), "command": command}


def render(result: Result, command: str) -> Group:
    """Render the result as text: the figures with all rounds, CPU time in one line for each unit, sections and notes."""
    groups: dict[str, list[Figure]] = {}
    for figure in result.figures:
        if figure.unit is CPU:
            groups.setdefault(figure.name.rpartition("/")[0], []).append(figure)
    parts: list[Table | Text] = [Text(result.machine.line), Text(f"$ {command}")]
    if result.figures:
        parts.append(_figure_table([figure for figure in result.figures if figure.unit is not CPU]))
        parts += [Text(f"{name}: {', '.join(map(_kind, figures))}.") for name, figures in groups.items()]
        if not any("cpu" in figure.name for figure in result.figures):
            parts.append(Text("CPU time was not measured, because the sandbox's processes are not visible."))
    parts += map(_section_table, result.sections)
    parts += map(Text, result.notes)
    if result.exceeded is not None:
        lines = [Text(line, "bold red") for line in result.exceeded]
        parts += lines or [Text("Nothing exceeds the limits.", "bold")]
    return Group(*parts)


def number(value: float) -> str:
    """Return a number with three significant digits or more."""
    return f"{value:,.0f}" if value == round(value) or value >= 1000 else f"{value:#.3g}".removesuffix(".")


def _kind(figure: Figure) -> str:
    return f"{figure.name.rpartition('/')[2]} {figure.median:,.0f}"


def _figure_table(figures: Sequence[Figure]) -> Table:
    """Return a table of all rounds and the medians. A figure that does not have a value for each round has only the latter."""
    count = max((len(figure.rounds) for figure in figures), default=1)
    titles = [*map(str, range(1, count + 1)), "median"] if count > 1 else [""]
    rows: list[list[str | Text]] = []
    for figure in figures:
        rounds = [number(figure.rounded(value)) for value in figure.rounds] if len(figure.rounds) == count > 1 else []
        padding = [""] * (len(titles) - 1 - len(rounds))
        rows.append([figure.name, *rounds, *padding, Text(number(figure.rounded(figure.median)), "bold")])
    return _section_table(Section("", ["", *titles], rows))


def _section_table(section: Section) -> Table:
    table = Table(*section.columns, title=section.title or None, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in section.rows:
        table.add_row(*row)
    return table


class ProgressBar(Progress):
    """A progress bar on standard error, unless it is hidden. It is shown during a `with` block of `bar`."""

    def __init__(self, visible: bool) -> None:
        columns = [BarColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn()]
        self.bar = Bar(
            TextColumn("{task.description}"), *columns, console=Console(stderr=True), disable=not visible, transient=True
        )
        self._task = self.bar.add_task("starting", total=None)

    def expect(self, steps: int) -> None:
        self.bar.update(self._task, total=steps)

    def __call__(self, what: str, done: int = 0) -> None:
        self.bar.update(self._task, description=what, advance=done)
