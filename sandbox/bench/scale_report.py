"""Format the result of `psp bench scale`, as JSON and as text."""

from statistics import median
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sandbox.bench.scale import CORES_FOR_RATE, IN_FLIGHT, ScaleResult


def figures(result: ScaleResult) -> dict[str, Any]:
    """Return the figures of `psp bench scale --json`: the medians, and each round's ratios."""
    return {
        "nodes": result.with_shards,
        "in_flight": {
            str(number): {
                "plain_cpu_us_per_payout": round(median(cost.plain for cost in costs), 1),
                "cpu_us_per_payout": {node: round(median(cost.nodes[node] for cost in costs), 1) for node in costs[0].nodes},
                "ratio": round(result.ratio(number), 3),
                "ratios": [round(cost.ratio, 3) for cost in costs],
            }
            for number, costs in result.rounds.items()
        },
        "idle_percent": round(result.idle, 2),
        "idle_percent_with_sandbox": round(result.idle_with_sandbox, 2),
        "rates": None if result.rates is None else [round(rate, 1) for rate in result.rates],
    }


def render(result: ScaleResult, command: str) -> Group:
    """Render the cost of a payout by node, the ratios, and what they imply."""
    nodes = list(result.rounds[IN_FLIGHT[0]][0].nodes)
    table = Table(
        "in flight",
        "plain",
        *(node.replace(":", "\n:") for node in nodes),
        "ratio",
        title="Database CPU per payout, in microseconds",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for number, costs in result.rounds.items():
        of_nodes = [f"{median(cost.nodes[node] for cost in costs):,.0f}" for node in nodes]
        ratios = [cost.ratio for cost in costs]
        ratio = f"{result.ratio(number):.2f} [{min(ratios):.2f}–{max(ratios):.2f}]"
        table.add_row(str(number), f"{median(cost.plain for cost in costs):,.0f}", *of_nodes, Text(ratio, "bold"))
    implied = ", ".join(
        f"{count} nodes: " + " / ".join(f"{result.implied_rate(number, count):.1f}" for number in IN_FLIGHT)
        for count in (2, 4, 8)
    )
    if result.rates is None:
        cores = result.machine.cores
        rate = f"No rate was measured: that needs {CORES_FOR_RATE} cores for each server, and here they share {cores}."
    else:
        plain, distributed = result.rates
        rate = f"Creates per second: {plain:,.0f} plain, {distributed:,.0f} on {result.with_shards} nodes."
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(
            f"All nodes together use {result.idle:.2f} % of a core without a sandbox, and "
            f"{result.idle_with_sandbox:.2f} % with an idle one."
        ),
        Text(
            "Arithmetic, not measured: if CPU time of the database alone decided, and merchants were spread evenly, N nodes "
            f"would do N / ratio times the payouts of one server, at {' / '.join(map(str, IN_FLIGHT))} in flight. {implied}."
        ),
        Text(rate),
    )
