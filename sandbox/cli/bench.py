"""`psp bench`: measure how fast the sandbox is on this machine, compared with the database itself."""

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.app import App
from sandbox.cli.bench_compare import compare
from sandbox.cli.bench_neighbors import neighbors
from sandbox.cli.bench_run import Json, Output, measure, print_result, show_progress
from sandbox.cli.bench_scale import scale
from sandbox.cli.failures import not_met, refused

if TYPE_CHECKING:
    from sandbox.bench.create import Progress
    from sandbox.bench.stack import Stack

app = App("Measure how fast the sandbox is on this machine.")
# Unknown options belong to the compared bench.
app.command("compare", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(compare)
app.command("neighbors")(neighbors)
app.command("scale")(scale)

_ReadyFile = Annotated[
    Path | None,
    typer.Option("--ready-file", help="Measure the running sandbox that wrote this file, instead of starting one."),
]
_Connections = Annotated[int, typer.Option("--connections", min=1, max=1000, help="HTTP connections.")]
_ApiProcesses = Annotated[
    int, typer.Option("--api-processes", min=1, max=64, help="API processes of the sandbox that it starts.")
]
_Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes of the sandbox that it starts.")]
_Merchants = Annotated[int, typer.Option("--merchants", min=1, max=1000, help="Spread the creates over this many merchants.")]


@app.callback()
def need_benchmarks() -> None:
    """Raise Failure in an installed package, which does not contain the benchmarks."""
    if find_spec("sandbox.bench") is None:
        raise refused("psp bench needs a clone of the repository: the installed package does not contain the benchmarks.")


@app.command("create")
def create(
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=3600, help="The duration of each measurement.")] = 8,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="How often to repeat each measurement; the medians count.")
    ] = 3,
    connections: _Connections = 64,
    merchants: _Merchants = 1,
    webhooks: Annotated[
        int, typer.Option("--webhooks", min=0, max=16, help="Webhook endpoints per merchant; each receives all events.")
    ] = 0,
    preload: Annotated[
        int, typer.Option("--preload", min=0, max=100_000_000, help="Store this many settled payouts first.")
    ] = 0,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Create payouts over HTTP with wrk, and compare with the same writes by pgbench.

    Everything is on: authentication, idempotency, logs, events, and the worker, which settles the payouts.
    pgbench writes one payout per transaction to the same database, first as separate prepared statements, then as one
    function inside the database, with 16 and with 64 clients; the better result counts. A ratio is the rate over HTTP
    divided by pgbench's.

    `cpu_us_per_payout` is the CPU time of the sandbox's processes, without pgbench, until each payout is settled and
    its webhooks are delivered.
    """
    from sandbox.bench import report
    from sandbox.bench.create import CreateBench

    def open_bench(stack: "Stack", progress: "Progress") -> CreateBench:
        return CreateBench(stack, seconds, rounds, connections, merchants, webhooks, preload, progress)

    result = measure(open_bench, ready_file, api_processes, workers, as_json)
    print_result(report.create_json(result), report.create_details(result), report.create_report, result, as_json, output)


@app.command("e2e")
def e2e(
    rate: Annotated[
        str, typer.Option("--rate", help="Creates per second, or a fraction of the top rate, such as 0.5x.")
    ] = "200",
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=86_400, help="How many seconds to send.")] = 8,
    drain: Annotated[float, typer.Option("--drain", min=1, max=3600, help="Seconds to wait for the last events.")] = 15,
    connections: _Connections = 64,
    merchants: _Merchants = 1,
    webhooks: Annotated[
        int, typer.Option("--webhooks", min=1, max=16, help="Webhook endpoints per merchant; each receives all events.")
    ] = 1,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Create payouts at a steady rate, and receive and verify all their webhooks.

    The percentiles measure the time from sending the request to receiving payout.succeeded at every endpoint. Each payout
    causes three events, and counts as delivered when all three have arrived at every endpoint. `behind` is the number of
    payouts that lacked a webhook when the last create was sent. `backlog` is the number of webhooks that had not arrived
    one second later. `missing` counts webhooks, `sent` and `delivered` count payouts.

    For a fraction such as 0.5x, a few seconds of full load without webhooks first measure the top rate.
    """
    from sandbox.bench import report
    from sandbox.bench.e2e import E2eBench, parse_rate

    try:
        parsed_rate = parse_rate(rate)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rate") from None

    def open_bench(stack: "Stack", progress: "Progress") -> E2eBench:
        return E2eBench(stack, parsed_rate, seconds, connections, drain, merchants, webhooks, progress)

    result = measure(open_bench, ready_file, api_processes, workers, as_json)
    print_result(report.e2e_json(result), report.e2e_details(result), report.e2e_report, result, as_json, output)
    if result.missing:
        raise not_met(f"{result.missing} did not arrive in time.")


@app.command("webhooks")
def webhooks(
    deliveries: Annotated[
        int, typer.Option("--deliveries", min=10, max=100_000, help="Webhooks that each side sends in a round.")
    ] = 5000,
    rate: Annotated[
        int, typer.Option("--rate", min=1, max=10_000, help="Payouts per second while the latency is measured.")
    ] = 25,
    seconds: Annotated[
        int, typer.Option("--seconds", min=1, max=3600, help="The duration of each measurement of the latency.")
    ] = 8,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="How often to repeat each measurement; the medians count.")
    ] = 3,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Deliver webhooks, and post the same bodies with a bare aiohttp client, alternately, to the same receiver.

    The bare client signs nothing and records nothing. The workers are held while the payouts are created, because the rate
    would otherwise be that of the creates. It is measured from the first arrival until the last attempt is recorded. The
    receiver has a process of its own.

    Then the bench creates payouts at --rate for a merchant with four endpoints, and measures the time from sending a create
    to receiving its payout.succeeded at the first: once while the other three work, and once while one of them hangs, one
    refuses connections, and the name of one does not resolve.

    `cpu_us_per_payout` is the CPU time of the sandbox's processes per webhook.
    """
    from sandbox.bench import webhooks_report as report
    from sandbox.bench.webhooks import WebhooksBench

    def open_bench(stack: "Stack", progress: "Progress") -> WebhooksBench:
        return WebhooksBench(stack, deliveries, rate, seconds, rounds, progress)

    result = measure(open_bench, ready_file, api_processes, workers, as_json)
    figures = report.figures(result)
    print_result(figures, asdict(result) | figures, report.render, result, as_json, output)


@app.command("wait-for")
def wait_for(
    rate: Annotated[int, typer.Option("--rate", min=1, max=100_000, help="Creates per second.")] = 200,
    seconds: Annotated[
        int, typer.Option("--seconds", min=1, max=86_400, help="How many seconds to measure, once all are held.")
    ] = 8,
    held: Annotated[int, typer.Option("--held", min=1, max=20_000, help="Requests to hold at any moment.")] = 1000,
    connections: _Connections = 64,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Create payouts at a steady rate, and hold a request with wait_for for each until it is paid.

    A scenario delays each payment just long enough to keep --held requests open. The percentiles measure the time from
    the payout's transition to the arrival of the response.
    """
    from sandbox.bench import report
    from sandbox.bench.wait_for import WaitForBench

    def open_bench(stack: "Stack", progress: "Progress") -> WaitForBench:
        return WaitForBench(stack, rate, seconds, held, connections, progress)

    result = measure(open_bench, ready_file, api_processes, workers, as_json)
    figures = report.wait_for_json(result)
    print_result(figures, asdict(result) | figures, report.wait_for_report, result, as_json, output)
    if result.missing:
        raise not_met(f"{result.missing} did not arrive in time.")


@app.command("summary")
def summary(
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=3600, help="The duration of each measurement.")] = 5,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="How often to repeat each measurement; the medians count.")
    ] = 3,
    connections: _Connections = 64,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Read one user's summary from the cache and create payouts, alternately, over the same number of connections.

    `cpu_us_per_summary` is the CPU time per read. `cpu_us_per_payout` is the CPU time per create, until the payout is
    settled.
    """
    from sandbox.bench import report
    from sandbox.bench.wallets import SummaryBench

    def open_bench(stack: "Stack", progress: "Progress") -> SummaryBench:
        return SummaryBench(stack, seconds, rounds, connections, progress)

    result = measure(open_bench, ready_file, api_processes, workers, as_json)
    figures = report.summary_json(result)
    print_result(figures, asdict(result) | figures, report.summary_report, result, as_json, output)


@app.command("reads")
def reads(
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=3600, help="The duration of each measurement.")] = 5,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="How often to repeat each measurement; the medians count.")
    ] = 3,
    connections: _Connections = 64,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Read payouts by id and the balance, alternately, with wrk.

    `cpu_us_per_payout_read` and `cpu_us_per_balance_read` are the CPU time of the sandbox's processes per read.
    """
    from sandbox.bench import report
    from sandbox.bench.reads import ReadsBench

    def open_bench(stack: "Stack", progress: "Progress") -> ReadsBench:
        return ReadsBench(stack, seconds, rounds, connections, progress)

    result = measure(open_bench, ready_file, api_processes, workers, as_json)
    figures = report.reads_json(result)
    print_result(figures, asdict(result) | figures, report.reads_report, result, as_json, output)


@app.command("startup")
def startup(
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="How often to repeat each measurement; the medians count.")
    ] = 3,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Start the sandbox with new data, and again with the same data, until it is ready.

    The CPU seconds are those of all its processes. It uses embedded stores even if the environment has URLs.
    """
    from sandbox.bench import report
    from sandbox.bench.revision import ROOT
    from sandbox.bench.startup import StartupBench

    with show_progress(as_json) as shown:
        shown.start("starting", 2 * rounds)
        result = StartupBench(ROOT, rounds, shown.advance).run()
    figures = report.startup_json(result)
    print_result(figures, asdict(result) | figures, report.startup_report, result, as_json, output)


@app.command("bulk-credit")
def bulk_credit(
    rows: Annotated[int, typer.Option("--rows", min=1, max=1_000_000, help="Rows of the file, one per user.")] = 100_000,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Credit many wallets from one CSV file. The users are created first, outside the measurement.

    `cpu_us_per_row` is the CPU time of the sandbox's processes per row.
    """
    from sandbox.bench import report
    from sandbox.bench.wallets import BulkCreditBench

    def open_bench(stack: "Stack", progress: "Progress") -> BulkCreditBench:
        return BulkCreditBench(stack, rows, progress)

    result = measure(open_bench, ready_file, api_processes, workers, as_json)
    figures = report.bulk_credit_json(result)
    print_result(figures, asdict(result) | figures, report.bulk_credit_report, result, as_json, output)


@app.command("growth")
def growth(
    case: Annotated[str, typer.Argument(help="age, neighbors or payouts.", metavar="CASE")],
    payouts: Annotated[
        int | None,
        typer.Option("--payouts", min=1, max=10_000_000, help="Payouts of the measured merchant. [default: by case]"),
    ] = None,
    merchants: Annotated[
        int, typer.Option("--merchants", min=1, max=1_000_000, help="Small merchants, each with one payout (neighbors).")
    ] = 100_000,
    webhooks: Annotated[int, typer.Option("--webhooks", min=0, max=16, help="Webhook endpoints of the merchant.")] = 3,
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=3600, help="The duration of each measurement.")] = 10,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="How often to measure each sandbox; the medians count.")
    ] = 3,
    connections: _Connections = 64,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Create payouts at full load, alternately in a sandbox with much data and in one without it.

    age: a sandbox that has created --payouts payouts (default: 120000, ten minutes at 200 per second), and a fresh one.

    neighbors: a merchant with --payouts stored payouts (default: 300000) among --merchants small merchants, and alone.

    payouts: a merchant with --payouts stored payouts (default: 1000000), and one without any.

    There are two ratios, each with the data divided by without it: CPU time per payout, and payouts per second.
    """
    from sandbox.bench import report
    from sandbox.bench.growth import GrowthBench, parse_case

    try:
        parsed_case = parse_case(case)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="CASE") from None
    with show_progress(as_json) as shown:
        bench = GrowthBench(parsed_case, payouts, merchants, webhooks, seconds, rounds, connections, shown.advance)
        shown.start("starting", bench.steps)
        result = bench.run()
    figures = report.growth_json(result)
    print_result(figures, asdict(result) | figures, report.growth_report, result, as_json, output)


@app.command("world")
def world(
    payouts: Annotated[int, typer.Option("--payouts", min=1, max=10_000, help="Settled payouts in the world.")] = 1000,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="How often to repeat each measurement; the medians count.")
    ] = 5,
    clients: Annotated[
        int, typer.Option("--clients", min=0, max=64, help="Clients that create payouts for another merchant.")
    ] = 2,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Create a merchant, take a snapshot of its world, restore it and reset it, while another merchant is busy.

    `cpu_us_per_payout` is the CPU time of the whole run, divided by the payouts of both merchants.
    """
    from sandbox.bench import report
    from sandbox.bench.world import WorldBench

    def open_bench(stack: "Stack", progress: "Progress") -> WorldBench:
        return WorldBench(stack, payouts, rounds, clients, progress)

    result = measure(open_bench, ready_file, api_processes, workers, as_json)
    figures = report.world_json(result)
    print_result(figures, asdict(result) | figures, report.world_report, result, as_json, output)
