"""Format the result of `psp bench neighbors`, as JSON and as text."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sandbox.bench.neighbors import MAX_RATIOS, NEIGHBORS, Failed, KindResult, NeighborsResult, Run, describe_status


def figures(result: NeighborsResult) -> dict[str, Any]:
    """Return the figures of `psp bench neighbors --json`."""
    return {
        "seconds": result.seconds,
        "connections": result.connections,
        "load": result.machine.load,
        "loop_s": result.machine.loop_s,
        "max_ratios": {f"p{percent}": limit for percent, limit in MAX_RATIOS.items()},
        "runs": [
            {"processes": run.processes, "kinds": {found.kind: _kind_figures(found) for found in run.kinds}}
            for run in result.runs
        ],
        "exceeded": result.exceeded,
    }


def _kind_figures(found: KindResult | Failed) -> dict[str, Any]:
    if isinstance(found, Failed):
        return {"error": found.reason}
    shown: dict[str, Any] = {}
    for percent in MAX_RATIOS:
        shown |= {
            f"p{percent}_ratio": round(found.ratio(percent), 2),
            f"p{percent}_ms": round(found.noise.ms(percent), 2),
            f"p{percent}_ms_in_calm": [round(phase.ms(percent), 2) for phase in (found.before, found.after)],
        }
    return shown | {
        "quiet_statuses": _statuses(found.noise.felt.statuses),
        "quiet_statuses_in_calm": [_statuses(phase.felt.statuses) for phase in (found.before, found.after)],
        "noise_statuses": _statuses(found.made.statuses),
        "noise_unanswered": found.made.unanswered,
        "cores": {kind: round(cores, 3) for kind, cores in found.noise.cores.items()},
        "cores_in_calm": [round(phase.cores["total"], 3) for phase in (found.before, found.after)],
        "noise_process_cores": round(found.noise_cores, 3),
    }


def render(result: NeighborsResult, command: str) -> Group:
    """Render a table for each number of API processes, and what exceeds the limits."""
    limits = ", ".join(f"p{percent} ≤ {limit:g} times that in calm" for percent, limit in MAX_RATIOS.items())
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        *(_table(run) for run in result.runs),
        Text(
            f"The latency of the quiet merchant in milliseconds, in calm (the mean before and after) → next to {NEIGHBORS} "
            "noisy merchants, and their ratio. For webhooks, the time from a create to its webhook. Responses are counted by "
            "status (late: none came in time). Cores are CPU seconds per second while there was noise: of the API processes / "
            "of the whole sandbox."
        ),
        Text(f"Limits: {limits}; only 201 for the quiet merchant; no 5xx and no lost connection for the noise."),
        *(Text(line, "bold red") for line in result.exceeded or ()),
        *(() if result.exceeded else (Text("Nothing exceeds the limits.", "bold"),)),
    )


def _table(run: Run) -> Table:
    percentiles = [name for percent in MAX_RATIOS for name in (f"p{percent} ms", "ratio")]
    table = Table("noise", *percentiles, "quiet", "noisy", "cores", title=f"API processes: {run.processes}", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for found in run.kinds:
        if isinstance(found, Failed):
            table.add_row(found.kind, "not measured")
            continue
        cells: list[str | Text] = []
        for percent, limit in MAX_RATIOS.items():
            ratio = found.ratio(percent)
            cells.append(f"{_short(found.calm_ms(percent))} → {_short(found.noise.ms(percent))}")
            cells.append(Text(f"{ratio:.1f}", "bold red" if ratio > limit else "bold"))
        cores = f"{found.noise.cores.get('api', 0.0):.2f}/{found.noise.cores['total']:.2f}"
        statuses = (_lines(found.noise.felt.statuses), _lines(found.made.statuses) or f"late: {found.made.unanswered}")
        table.add_row(found.kind, *cells, *statuses, cores)
    return table


def _statuses(statuses: Mapping[int, int]) -> dict[str, int]:
    return {describe_status(status): count for status, count in sorted(statuses.items())}


def _lines(statuses: Mapping[int, int]) -> str:
    return "\n".join(f"{status or 'none'}: {count}" for status, count in sorted(statuses.items()))


def _short(ms: float) -> str:
    return f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"
