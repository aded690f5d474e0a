"""Format the result of `psp bench webhooks`, as JSON and as text."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sandbox.bench.report import cpu_json, cpu_line
from sandbox.bench.webhooks import WebhooksResult


def figures(result: WebhooksResult) -> dict[str, Any]:
    """Return the figures of `psp bench webhooks --json`: the medians, and each round's ratios."""
    rounds = result.rounds
    return {
        "deliveries": result.deliveries,
        "sandbox_per_second": round(median(round_.sandbox_rate for round_ in rounds), 1),
        "client_per_second": round(median(round_.client_rate for round_ in rounds), 1),
        "ratio": round(median(result.ratios), 3),
        "ratios": [round(ratio, 3) for ratio in result.ratios],
        "p95_ms_next_to_working": round(median(round_.working_p95_ms for round_ in rounds), 2),
        "p95_ms_next_to_failing": round(median(round_.failing_p95_ms for round_ in rounds), 2),
        "p95_ratio": round(median(result.p95_ratios), 3),
        "p95_ratios": [round(ratio, 3) for ratio in result.p95_ratios],
        **cpu_json(result.cpu_us, result.machine),
    }


def render(result: WebhooksResult, command: str) -> Group:
    """Render each round, the medians and the ratios."""
    rounds = result.rounds
    table = Table("", *(str(number) for number in range(1, len(rounds) + 1)), "median")
    for column in table.columns[1:]:
        column.justify = "right"
    rows: list[tuple[str, list[float], str]] = [
        ("webhooks per second, sandbox", [round_.sandbox_rate for round_ in rounds], ",.0f"),
        ("webhooks per second, bare aiohttp client", [round_.client_rate for round_ in rounds], ",.0f"),
        ("p95 in ms, next to working endpoints", [round_.working_p95_ms for round_ in rounds], ".1f"),
        ("p95 in ms, next to failing endpoints", [round_.failing_p95_ms for round_ in rounds], ".1f"),
    ]
    for name, values, form in rows:
        table.add_row(name, *(format(value, form) for value in values), Text(format(median(values), form), "bold"))
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(f"Sandbox to bare client: {_with_range(result.ratios)}", "bold"),
        Text(f"p95 next to failing endpoints ÷ next to working ones: {_with_range(result.p95_ratios)}", "bold"),
        Text(
            f"Each round delivered {result.deliveries:,} webhooks; each was recorded with one successful attempt. The "
            f"latencies are those of payout.succeeded at {result.rate:,} payouts per second."
        ),
        cpu_line(result.cpu_us, "webhook"),
    )


def _with_range(values: Sequence[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f}–{max(values):.2f}]"
