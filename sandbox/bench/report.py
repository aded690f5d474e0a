"""Format the results of the benchmarks, as JSON and as text."""

from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sandbox.bench.cpu import KINDS, TOTAL
from sandbox.bench.create import CreateResult
from sandbox.bench.e2e import E2eResult
from sandbox.bench.growth import GrowthResult
from sandbox.bench.machine import Machine
from sandbox.bench.pgbench import CLIENTS, METHODS
from sandbox.bench.reads import READS, ReadsResult
from sandbox.bench.startup import STARTS, StartupResult
from sandbox.bench.wait_for import WaitForResult
from sandbox.bench.wallets import BulkCreditResult, SummaryResult
from sandbox.bench.world import WorldResult

METHOD_NAMES = {"statements": "separate prepared statements", "function": "one server-side function"}


def cpu_json(cpu_us: Mapping[str, float], machine: Machine, unit: str = "payout") -> dict[str, Any]:
    """Return the figures that every bench reports in addition to its own. `unit` is what the CPU time is divided by."""
    return {f"cpu_us_per_{unit}": _rounded(cpu_us), "loop_s": machine.loop_s}


def cpu_line(cpu_us: Mapping[str, float], unit: str = "payout") -> Text:
    """Return one line of text with the CPU time per unit, by kind of process."""
    if not cpu_us:
        return Text(f"CPU per {unit}: not measured, because the sandbox's processes are not visible.")
    kinds = ", ".join(f"{kind} {micros:,.0f}" for kind, micros in cpu_us.items() if kind != TOTAL)
    return Text(f"CPU in µs per {unit}: {kinds}; {cpu_us[TOTAL]:,.0f} in total.")


def _rounded(cpu_us: Mapping[str, float]) -> dict[str, float]:
    return {kind: round(micros, 1) for kind, micros in cpu_us.items()}


def create_json(result: CreateResult) -> dict[str, Any]:
    """Return the figures of `psp bench create --json`."""
    return {
        "http_rps": round(result.http_rps, 1),
        "p50_ms": round(result.p50_ms, 2),
        "p99_ms": round(result.p99_ms, 2),
        "pgbench_statements_tps": round(result.best("statements"), 1),
        "pgbench_function_tps": round(result.best("function"), 1),
        "ratio_statements": round(result.ratio("statements"), 3),
        "ratio_function": round(result.ratio("function"), 3),
        **cpu_json(result.cpu_us, result.machine),
    }


def create_details(result: CreateResult) -> dict[str, Any]:
    """Return everything that was measured, with the machine."""
    return create_json(result) | {
        "machine": asdict(result.machine),
        "stored_before": result.stored_before,
        "created": result.created,
        "merchants": result.merchants,
        "webhooks": result.webhooks,
        "rounds": [
            {
                "http_rps": round(round_.http.http_rps, 1),
                "p50_ms": round(round_.http.p50_ms, 2),
                "p99_ms": round(round_.http.p99_ms, 2),
                "unsettled": round_.http.unsettled,
                "cpu_us_per_payout": _rounded(round_.http.cpu_us),
                "pgbench": {f"{method}_{clients}": round(tps, 1) for (method, clients), tps in round_.pgbench.items()},
            }
            for round_ in result.rounds
        ],
    }


def create_report(result: CreateResult, command: str) -> Group:
    """Render all rounds, the medians and the ratios."""
    title = "payouts per second"
    if result.merchants > 1 or result.webhooks:
        title += f", merchants: {result.merchants}, webhook endpoints per merchant: {result.webhooks}"
    table = Table("", *(str(number) for number in range(1, len(result.rounds) + 1)), "median", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    rows: list[tuple[str, list[float], float, str]] = [
        ("HTTP", [round_.http.http_rps for round_ in result.rounds], result.http_rps, ",.0f")
    ]
    for method in METHODS:
        for clients in CLIENTS:
            name = f"pgbench, {METHOD_NAMES[method]}, {clients} clients"
            rows.append(
                (name, [round_.pgbench[method, clients] for round_ in result.rounds], result.tps(method, clients), ",.0f")
            )
    rows.append(("HTTP, p50 in ms", [round_.http.p50_ms for round_ in result.rounds], result.p50_ms, ".1f"))
    rows.append(("HTTP, p99 in ms", [round_.http.p99_ms for round_ in result.rounds], result.p99_ms, ".1f"))
    for name, values, middle, form in rows:
        table.add_row(name, *(format(value, form) for value in values), Text(format(middle, form), "bold"))
    unsettled = ", ".join(f"{round_.http.unsettled:,}" for round_ in result.rounds)
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(f"HTTP to statements: {result.ratio('statements'):.2f}", "bold"),
        Text(f"HTTP to function:   {result.ratio('function'):.2f}", "bold"),
        cpu_line(result.cpu_us),
        Text(
            f"{result.stored_before:,} payouts were stored before. {result.created:,} were created over HTTP; none was "
            f"refused. Unsettled payouts at the end of each round's load: {unsettled}. The audit is clean."
        ),
    )


def e2e_json(result: E2eResult) -> dict[str, Any]:
    """Return the figures of `psp bench e2e --json`."""
    return {
        "rate": result.rate,
        "sent": result.sent,
        "delivered": result.delivered,
        "missing": result.missing,
        "p50_ms": round(result.p50_ms, 2),
        "p95_ms": round(result.p95_ms, 2),
        "p99_ms": round(result.p99_ms, 2),
        "behind": result.behind,
        "backlog": result.backlog,
        **cpu_json(result.cpu_us, result.machine),
    }


def e2e_details(result: E2eResult) -> dict[str, Any]:
    """Return everything that was measured, with the machine."""
    return asdict(result) | e2e_json(result)


def e2e_report(result: E2eResult, command: str) -> Group:
    """Render what was sent, what arrived, and when."""
    table = Table("milliseconds", "p50", "p95", "p99", title=f"{result.rate:,} creates per second")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(
        "create to receiving payout.succeeded",
        *(Text(f"{value:.1f}", "bold") for value in (result.p50_ms, result.p95_ms, result.p99_ms)),
    )
    table.add_row("create to its response", f"{result.response_p50_ms:.1f}", "", f"{result.response_p99_ms:.1f}")
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(
            f"{result.sent:,} payouts sent, {result.delivered:,} delivered with all webhooks, {result.missing:,} "
            f"webhooks missing, {result.duplicates:,} duplicates; every signature is valid.",
            "bold",
        ),
        Text(
            f"When the last create was sent, {result.behind:,} payouts, or {result.behind / result.rate:.2f} s of creates, "
            f"lacked a webhook; one second later {result.backlog:,} webhooks were missing. The last webhook arrived "
            f"{result.drained_after:.2f} s after the last create. The load generator was at most "
            f"{result.generator_late_ms:.0f} ms behind its schedule. The audit is clean."
        ),
        cpu_line(result.cpu_us),
    )


def wait_for_json(result: WaitForResult) -> dict[str, Any]:
    """Return the figures of `psp bench wait-for --json`."""
    return {
        "rate": result.rate,
        "sent": result.sent,
        "held": result.held,
        "answered": result.answered,
        "missing": result.missing,
        "p50_ms": round(result.p50_ms, 2),
        "p95_ms": round(result.p95_ms, 2),
        "p99_ms": round(result.p99_ms, 2),
        **cpu_json(result.cpu_us, result.machine),
    }


def wait_for_report(result: WaitForResult, command: str) -> Group:
    """Render how many requests were held and got a response, and how fast."""
    table = Table("milliseconds", "p50", "p95", "p99", title=f"{result.rate:,} creates per second")
    for column in table.columns[1:]:
        column.justify = "right"
    figures = (result.p50_ms, result.p95_ms, result.p99_ms)
    table.add_row("transition to response", *(Text(f"{value:.1f}", "bold") for value in figures))
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(
            f"{result.sent:,} requests waited for a payout, up to {result.held:,} at the same time. {result.answered:,} got a "
            f"response with the paid payout, {result.missing:,} did not. The audit is clean.",
            "bold",
        ),
        cpu_line(result.cpu_us),
        *(Text(f"failed: {reason}", "red") for reason in result.reasons),
    )


def summary_json(result: SummaryResult) -> dict[str, Any]:
    """Return the figures of `psp bench summary --json`: the medians and their ratio."""
    return {
        "summary_rps": round(median(result.reads), 1),
        "create_rps": round(median(result.creates), 1),
        "ratio": round(result.ratio, 3),
        "cpu_us_per_summary": _rounded(result.cpu_us_of_reads),
        **cpu_json(result.cpu_us, result.machine),
    }


def summary_report(result: SummaryResult, command: str) -> Group:
    """Render both rates of each round, and their ratio."""
    table = Table("", *(str(number) for number in range(1, len(result.reads) + 1)), "median", title="per second")
    for name, values in (("summaries from the cache", result.reads), ("payouts created", result.creates)):
        table.add_row(name, *(f"{value:,.0f}" for value in values), Text(f"{median(values):,.0f}", "bold"))
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(f"Summaries to creates: {result.ratio:.2f}", "bold"),
        cpu_line(result.cpu_us_of_reads, "summary"),
        cpu_line(result.cpu_us),
    )


def reads_json(result: ReadsResult) -> dict[str, Any]:
    """Return the figures of `psp bench reads --json`: the medians."""
    figures: dict[str, Any] = {}
    for read in READS:
        figures[f"{read}_rps"] = round(result.rps(read), 1)
        figures[f"{read}_p99_ms"] = round(result.p99_ms(read), 2)
        figures[f"cpu_us_per_{read}_read"] = _rounded(result.cpu_us[read])
    return figures | {"loop_s": result.machine.loop_s}


def reads_report(result: ReadsResult, command: str) -> Group:
    """Render the rate of each round, and the CPU time per read."""
    columns = (str(number) for number in range(1, len(result.runs[READS[0]]) + 1))
    table = Table("", *columns, "median", "p99 in ms", title="reads per second")
    for column in table.columns[1:]:
        column.justify = "right"
    for read, name in zip(READS, ("GET /payouts/{id}", "GET /balance"), strict=True):
        rates = (f"{run.rps:,.0f}" for run in result.runs[read])
        table.add_row(name, *rates, Text(f"{result.rps(read):,.0f}", "bold"), f"{result.p99_ms(read):,.1f}")
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        *(cpu_line(result.cpu_us[read], f"{read} read") for read in READS),
    )


def startup_json(result: StartupResult) -> dict[str, Any]:
    """Return the figures of `psp bench startup --json`: the medians in seconds."""
    figures: dict[str, Any] = {}
    for start in STARTS:
        figures[f"{start}_cpu_seconds"] = round(result.cpu_seconds(start), 3)
        figures[f"{start}_wall_seconds"] = round(result.wall_seconds(start), 3)
    return figures | {"loop_s": result.machine.loop_s}


def startup_report(result: StartupResult, command: str) -> Group:
    """Render the CPU time by kind of process, and the wall-clock time."""
    kinds = [kind for kind in (*KINDS, TOTAL) if kind in result.starts[STARTS[0]][0].cpu_seconds]
    rounds = len(result.starts[STARTS[0]])
    table = Table("", *kinds, "wall clock", title=f"seconds until psp up is ready, medians of {rounds} rounds")
    for column in table.columns[1:]:
        column.justify = "right"
    for start in STARTS:
        cpu = (median(measured.cpu_seconds.get(kind, 0.0) for measured in result.starts[start]) for kind in kinds)
        table.add_row(start, *(f"{seconds:.2f}" for seconds in cpu), Text(f"{result.wall_seconds(start):.2f}", "bold"))
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text("The columns of the processes are CPU seconds; the supervisor's include the steps that have ended. Cold is a "
             "start with new data, warm is the next start with the same data."),
    )  # fmt: skip


def bulk_credit_json(result: BulkCreditResult) -> dict[str, Any]:
    """Return the figures of `psp bench bulk-credit --json`."""
    return {
        "rows": result.rows,
        "upload_seconds": round(result.upload_seconds, 3),
        "seconds": round(result.seconds, 3),
        "rows_per_second": round(result.rows / result.seconds, 1),
        **cpu_json(result.cpu_us, result.machine, "row"),
    }


def bulk_credit_report(result: BulkCreditResult, command: str) -> Group:
    """Render the times of the upload and of the credits."""
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        Text(
            f"{result.rows:,} rows: uploaded in {result.upload_seconds:.2f} s, all credited after {result.seconds:.2f} s, "
            f"{result.rows / result.seconds:,.0f} rows per second. Each row is credited once, and the audit is clean.",
            "bold",
        ),
        cpu_line(result.cpu_us, "row"),
    )


def world_json(result: WorldResult) -> dict[str, Any]:
    """Return the figures of `psp bench world --json`: the medians in milliseconds."""
    figures = {f"{step}_ms": round(result.ms(step), 1) for step in result.rounds}
    cpu = cpu_json(result.cpu_us, result.machine)
    return {"payouts": result.payouts, "rows": result.rows, **figures, "others": result.others, **cpu}


def world_report(result: WorldResult, command: str) -> Group:
    """Render each round, and the medians."""
    count = len(next(iter(result.rounds.values())))
    table = Table("", *(str(number) for number in range(1, count + 1)), "median", title="milliseconds")
    for column in table.columns[1:]:
        column.justify = "right"
    for step, values in result.rounds.items():
        table.add_row(step, *(f"{value:,.1f}" for value in values), Text(f"{result.ms(step):,.1f}", "bold"))
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(
            f"The world has {result.payouts:,} payouts, {result.rows:,} rows. During the rounds, another merchant created "
            f"{result.others:,} payouts, and none was lost. The audits of both merchants are clean.",
            "bold",
        ),
        cpu_line(result.cpu_us),
    )


def growth_json(result: GrowthResult) -> dict[str, Any]:
    """Return the figures of `psp bench growth --json`. Each ratio is the median of the rounds: with the data / without."""
    return {
        "case": result.case,
        "cpu_ratio": {kind: round(median(result.cpu_ratios(kind)), 3) for kind in ("postgres", TOTAL)},
        "cpu_ratios_postgres": [round(ratio, 3) for ratio in result.cpu_ratios("postgres")],
        "rps_ratio": round(result.rps_ratio, 3),
        "without_data": {"cpu_us_per_payout": _rounded(result.cpu_us(result.without))},
        "with_data": {"cpu_us_per_payout": _rounded(result.cpu_us(result.grown))},
        "loop_s": result.machine.loop_s,
    }


def growth_report(result: GrowthResult, command: str) -> Group:
    """Render the CPU time of each round, and the ratios."""
    table = Table("", *(str(number) for number in range(1, len(result.grown) + 1)), "median", title="CPU in µs per payout")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in ("postgres", TOTAL):
        for name, runs in (("without the data", result.without), ("with the data", result.grown)):
            values = [run.cpu_us[kind] for run in runs]
            table.add_row(f"{kind}, {name}", *(f"{value:,.0f}" for value in values), Text(f"{median(values):,.0f}", "bold"))
    ratios = ", ".join(f"{kind} {median(result.cpu_ratios(kind)):.2f}" for kind in ("postgres", TOTAL))
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(f"With the data ÷ without, median of the rounds: {ratios}; payouts per second {result.rps_ratio:.2f}.", "bold"),
    )
