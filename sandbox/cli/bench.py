"""`psp bench`: how fast the sandbox is here, measured against what the database itself can do."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.app import App
from sandbox.cli.bench_compare import compare
from sandbox.cli.bench_run import measure, print_result
from sandbox.cli.failures import not_met

if TYPE_CHECKING:
    from sandbox.bench.create import Progress
    from sandbox.bench.stack import Stack

app = App("Measure how fast the sandbox is on this machine.")
# The options that it does not know are the bench's.
app.command("compare", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(compare)

_ReadyFile = Annotated[
    Path | None,
    typer.Option("--ready-file", help="Measure the sandbox that wrote this file, instead of one started for it."),
]
_Connections = Annotated[int, typer.Option("--connections", min=1, max=1000, help="HTTP connections.")]
_ApiProcesses = Annotated[
    int, typer.Option("--api-processes", min=1, max=64, help="API processes of the sandbox that is started for it.")
]
_Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="Workers of the sandbox that is started for it.")]
_Merchants = Annotated[int, typer.Option("--merchants", min=1, max=1000, help="Spread the creates over so many merchants.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON, and nothing else.")]
_Output = Annotated[
    Path | None,
    typer.Option("--output", help="Write everything that was measured, and on what machine, to this JSON file."),
]


@app.command("create")
def create(
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=3600, help="How long each measurement takes.")] = 8,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100, help="Rounds of each measurement; the median counts.")] = 3,
    connections: _Connections = 64,
    merchants: _Merchants = 1,
    webhooks: Annotated[
        int, typer.Option("--webhooks", min=0, max=16, help="Webhook endpoints of each merchant; each receives all events.")
    ] = 0,
    preload: Annotated[
        int, typer.Option("--preload", min=0, max=100_000_000, help="Store this many settled payouts beforehand.")
    ] = 0,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: _Json = False,
    output: _Output = None,
) -> None:
    """Create payouts over HTTP (wrk), and have pgbench do the same writes to the same database.

    Everything is on: authentication, idempotency, logs, events, and the worker that settles the payouts meanwhile.
    pgbench writes one payout a transaction, once as separate prepared statements and once as one function inside the
    database, with 16 and 64 clients; the better one counts. A ratio is HTTP's rate divided by pgbench's.

    `cpu_us_per_payout` is the CPU time of the sandbox's processes, without pgbench, until each payout is settled and
    its webhooks are delivered.
    """
    from sandbox.bench import report
    from sandbox.bench.create import CreateBench

    def made(stack: "Stack", progress: "Progress") -> CreateBench:
        return CreateBench(stack, seconds, rounds, connections, merchants, webhooks, preload, progress)

    result = measure(made, ready_file, api_processes, workers, as_json)
    print_result(report.create_json(result), report.create_details(result), report.create_report, result, as_json, output)


@app.command("e2e")
def e2e(
    rate: Annotated[
        str, typer.Option("--rate", help="Creates per second, or 0.5x: half of what is created at full load.")
    ] = "200",
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=86_400, help="For how long.")] = 8,
    drain: Annotated[
        float, typer.Option("--drain", min=1, max=3600, help="Seconds to wait at the end for events still to come.")
    ] = 15,
    connections: _Connections = 64,
    merchants: _Merchants = 1,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: _Json = False,
    output: _Output = None,
) -> None:
    """Create payouts at a steady rate, and receive, check and count every webhook that they cause.

    Each payout causes three events. The percentiles are of the time from the sending of the request to the arrival of
    payout.succeeded. The backlog is how many events had not arrived one second after the last create. `sent` and
    `delivered` count payouts, `missing` and `backlog` events; a payout is delivered when all its events have arrived.

    For a rate such as 0.5x the sandbox is first put under full load for a few seconds, by merchants without webhooks.
    """
    from sandbox.bench import report
    from sandbox.bench.e2e import E2eBench, parse_rate

    try:
        asked = parse_rate(rate)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rate") from None

    def made(stack: "Stack", progress: "Progress") -> E2eBench:
        return E2eBench(stack, asked, seconds, connections, drain, merchants, progress)

    result = measure(made, ready_file, api_processes, workers, as_json)
    print_result(report.e2e_json(result), report.e2e_details(result), report.e2e_report, result, as_json, output)
    if result.missing:
        raise not_met(f"{result.missing} did not arrive in time.")


@app.command("wait-for")
def wait_for(
    rate: Annotated[int, typer.Option("--rate", min=1, max=100_000, help="Creates per second.")] = 200,
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=86_400, help="For how long, once all are held.")] = 8,
    held: Annotated[int, typer.Option("--held", min=1, max=20_000, help="Requests held at any moment.")] = 1000,
    connections: _Connections = 64,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: _Json = False,
    output: _Output = None,
) -> None:
    """Create payouts at a steady rate, and hold a request in wait_for for each of them until it is paid.

    A scenario pays each so long after its create that so many requests are held. The percentiles are of the time from
    the transition to the arrival of the answer.
    """
    from sandbox.bench import report
    from sandbox.bench.wait_for import WaitForBench

    def made(stack: "Stack", progress: "Progress") -> WaitForBench:
        return WaitForBench(stack, rate, seconds, held, connections, progress)

    result = measure(made, ready_file, api_processes, workers, as_json)
    figures = report.wait_for_json(result)
    print_result(figures, asdict(result) | figures, report.wait_for_report, result, as_json, output)
    if result.missing:
        raise not_met(f"{result.missing} did not arrive in time.")


@app.command("summary")
def summary(
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=3600, help="How long each measurement takes.")] = 5,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100, help="Rounds of each measurement; the median counts.")] = 3,
    connections: _Connections = 64,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: _Json = False,
    output: _Output = None,
) -> None:
    """Read one user's summary from the cache, and create payouts, in turn, with the same number of connections.

    `cpu_us_per_summary` is the CPU time of a read, `cpu_us_per_payout` that of a create until the payout is settled.
    """
    from sandbox.bench import report
    from sandbox.bench.wallets import SummaryBench

    def made(stack: "Stack", progress: "Progress") -> SummaryBench:
        return SummaryBench(stack, seconds, rounds, connections, progress)

    result = measure(made, ready_file, api_processes, workers, as_json)
    figures = report.summary_json(result)
    print_result(figures, asdict(result) | figures, report.summary_report, result, as_json, output)


@app.command("bulk-credit")
def bulk_credit(
    rows: Annotated[int, typer.Option("--rows", min=1, max=1_000_000, help="Rows of the file, a user each.")] = 100_000,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: _Json = False,
    output: _Output = None,
) -> None:
    """Credit the wallets of so many users from one CSV file. The users are made beforehand, which is not measured.

    This bench has no payouts: its `cpu_us_per_payout` is CPU time per row.
    """
    from sandbox.bench import report
    from sandbox.bench.wallets import BulkCreditBench

    def made(stack: "Stack", progress: "Progress") -> BulkCreditBench:
        return BulkCreditBench(stack, rows, progress)

    result = measure(made, ready_file, api_processes, workers, as_json)
    figures = report.bulk_credit_json(result)
    print_result(figures, asdict(result) | figures, report.bulk_credit_report, result, as_json, output)


@app.command("world")
def world(
    payouts: Annotated[int, typer.Option("--payouts", min=1, max=10_000, help="Settled payouts of the world.")] = 1000,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100, help="Rounds of each measurement; the median counts.")] = 5,
    clients: Annotated[int, typer.Option("--clients", min=0, max=64, help="Clients that create for another merchant.")] = 2,
    ready_file: _ReadyFile = None,
    api_processes: _ApiProcesses = 1,
    workers: _Workers = 1,
    as_json: _Json = False,
    output: _Output = None,
) -> None:
    """Make a merchant, put its world away, put it back and reset it, while another merchant is busy.

    `cpu_us_per_payout` is the CPU time of all of it, divided by the payouts that both merchants create.
    """
    from sandbox.bench import report
    from sandbox.bench.world import WorldBench

    def made(stack: "Stack", progress: "Progress") -> WorldBench:
        return WorldBench(stack, payouts, rounds, clients, progress)

    result = measure(made, ready_file, api_processes, workers, as_json)
    figures = report.world_json(result)
    print_result(figures, asdict(result) | figures, report.world_report, result, as_json, output)
