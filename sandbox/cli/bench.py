"""`psp bench`: measure how fast the sandbox is on this machine, compared with the database itself."""

from functools import partial
from importlib.util import find_spec
from typing import Annotated

import typer

from sandbox.cli.app import App
from sandbox.cli.bench_compare import compare
from sandbox.cli.bench_run import OpenBench, add_bench
from sandbox.cli.failures import refused

app = App("Measure how fast the sandbox is on this machine.")
# Unknown options belong to the compared bench.
app.command("compare", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(compare)

_Seconds = Annotated[int, typer.Option("--seconds", min=1, max=3600, help="The duration of each measurement.")]
_Rounds = Annotated[
    int, typer.Option("--rounds", min=1, max=100, help="How often to repeat each measurement; the medians count.")
]
_Connections = Annotated[int, typer.Option("--connections", min=1, max=1000, help="HTTP connections.")]
_Merchants = Annotated[int, typer.Option("--merchants", min=1, max=1000, help="Spread the creates over this many merchants.")]
_PerMerchant = "Webhook endpoints per merchant; each receives all events."


@app.callback()
def need_benchmarks() -> None:
    """Raise Failure in an installed package, which does not contain the benchmarks."""
    if find_spec("sandbox.cli.benches") is None:
        raise refused("psp bench needs a clone of the repository: the installed package does not contain the benchmarks.")


@add_bench(app, "create")
def create(
    seconds: _Seconds = 8,
    rounds: _Rounds = 3,
    connections: _Connections = 64,
    merchants: _Merchants = 1,
    webhooks: Annotated[int, typer.Option("--webhooks", min=0, max=16, help=_PerMerchant)] = 0,
    preload: Annotated[
        int, typer.Option("--preload", min=0, max=100_000_000, help="Store this many settled payouts first.")
    ] = 0,
) -> OpenBench:
    """Create payouts over HTTP with wrk, and compare with the same writes by pgbench.

    Everything is on: authentication, idempotency, logs, events, and the worker, which settles the payouts.
    pgbench writes one payout per transaction to the same database, first as separate prepared statements, then as one
    function inside the database, with 16 and with 64 clients; the better result counts. A ratio is the rate over HTTP
    divided by pgbench's.

    `cpu_us_per_payout` is the CPU time of the sandbox's processes, without pgbench, until each payout is settled and
    its webhooks are delivered.
    """
    from sandbox.cli.benches.create import CreateBench

    return partial(
        CreateBench, seconds=seconds, rounds=rounds, connections=connections, merchants=merchants, webhooks=webhooks,
        preload=preload,
    )  # fmt: skip


@add_bench(app, "lone")
def lone(
    seconds: _Seconds = 3,
    rounds: _Rounds = 4,
    webhooks: Annotated[int, typer.Option("--webhooks", min=0, max=16, help=_PerMerchant)] = 0,
) -> OpenBench:
    """Create payouts with few requests in flight, as tests and people do.

    The cases are one merchant with one connection and with four, 64 merchants with one connection each, and, for
    comparison, one merchant with 64 connections. Also measures what a test with its own merchant costs, and the memory of
    all processes, when idle and with 10,000 payouts more.
    """
    from sandbox.cli.benches.lone import LoneBench

    return partial(LoneBench, seconds=seconds, rounds=rounds, webhooks=webhooks)


@add_bench(app, "e2e")
def e2e(
    rate: Annotated[
        str, typer.Option("--rate", help="Creates per second, or a fraction of the top rate, such as 0.5x.")
    ] = "200",
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=86_400, help="How many seconds to send.")] = 8,
    drain: Annotated[float, typer.Option("--drain", min=1, max=3600, help="Seconds to wait for the last events.")] = 15,
    connections: _Connections = 64,
    merchants: _Merchants = 1,
    webhooks: Annotated[int, typer.Option("--webhooks", min=1, max=16, help=_PerMerchant)] = 1,
) -> OpenBench:
    """Create payouts at a steady rate, and receive and verify all their webhooks.

    The percentiles measure the time from sending the request to receiving payout.succeeded at every endpoint. Each payout
    causes three events, and counts as delivered when all three have arrived at every endpoint. `behind` is the number of
    payouts that lacked a webhook when the last create was sent. `backlog` is the number of webhooks that had not arrived
    one second later. `missing` counts webhooks, `sent` and `delivered` count payouts.

    For a fraction such as 0.5x, a few seconds of full load without webhooks first measure the top rate.
    """
    from sandbox.cli.benches.e2e import E2eBench, parse_rate

    try:
        parsed_rate = parse_rate(rate)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rate") from None
    return partial(
        E2eBench, rate=parsed_rate, seconds=seconds, connections=connections, drain=drain, merchants=merchants,
        webhooks=webhooks,
    )  # fmt: skip


@add_bench(app, "webhooks")
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
    rounds: _Rounds = 3,
) -> OpenBench:
    """Deliver webhooks, and post the same bodies with a bare aiohttp client, alternately, to the same receiver.

    The bare client signs nothing and records nothing. The workers are held while the payouts are created, because the rate
    would otherwise be that of the creates. It is measured from the first arrival until the last attempt is recorded. The
    receiver has its own process.

    Then the bench creates payouts at --rate for a merchant with four endpoints, and measures the time from sending a create
    to receiving its payout.succeeded at the first: once while the other three work, and once while one of them hangs, one
    refuses connections, and the name of one does not resolve.

    `cpu_us_per_payout` is the CPU time of the sandbox's processes per webhook.
    """
    from sandbox.cli.benches.webhooks import WebhooksBench

    return partial(WebhooksBench, deliveries=deliveries, rate=rate, seconds=seconds, rounds=rounds)


@add_bench(app, "wait-for")
def wait_for(
    rate: Annotated[int, typer.Option("--rate", min=1, max=100_000, help="Creates per second.")] = 200,
    seconds: Annotated[
        int, typer.Option("--seconds", min=1, max=86_400, help="How many seconds to measure, once all are held.")
    ] = 8,
    held: Annotated[int, typer.Option("--held", min=1, max=20_000, help="Requests to hold at any moment.")] = 1000,
    connections: _Connections = 64,
) -> OpenBench:
    """Create payouts at a steady rate, and hold a request with wait_for for each until it is paid.

    A scenario delays each payment just long enough to keep --held requests open. The percentiles measure the time from
    the payout's transition to the arrival of the response.
    """
    from sandbox.cli.benches.wait_for import WaitForBench

    return partial(WaitForBench, rate=rate, seconds=seconds, held=held, connections=connections)


@add_bench(app, "summary")
def summary(
    seconds: _Seconds = 5,
    rounds: _Rounds = 3,
    connections: _Connections = 64,
) -> OpenBench:
    """Read one user's summary from the cache and create payouts, alternately, over the same number of connections.

    `cpu_us_per_summary` is the CPU time per read. `cpu_us_per_payout` is the CPU time per create, until the payout is
    settled.
    """
    from sandbox.cli.benches.summary import SummaryBench

    return partial(SummaryBench, seconds=seconds, rounds=rounds, connections=connections)


@add_bench(app, "dialect")
def dialect(
    name: Annotated[str, typer.Option("--name", help="The dialect, as in GET /openapi.")],
    seconds: _Seconds = 4,
    rounds: _Rounds = 4,
    connections: _Connections = 4,
) -> OpenBench:
    """Create payouts in a dialect and natively, alternately. The ratios are the dialect's figures divided by the native ones.

    `ratio/cpu` is that of the CPU time of all processes per payout, until it is settled.
    """
    from sandbox.cli.benches.dialect import DialectBench

    return partial(DialectBench, name=name, seconds=seconds, rounds=rounds, connections=connections)


@add_bench(app, "reads")
def reads(
    seconds: _Seconds = 5,
    rounds: _Rounds = 3,
    connections: _Connections = 64,
) -> OpenBench:
    """Read payouts by id and the balance, alternately, with wrk.

    `cpu_us_per_payout_read` and `cpu_us_per_balance_read` are the CPU time of the sandbox's processes per read.
    """
    from sandbox.cli.benches.reads import ReadsBench

    return partial(ReadsBench, seconds=seconds, rounds=rounds, connections=connections)


@add_bench(app, "consoles")
def consoles(
    consoles: Annotated[int, typer.Option("--consoles", min=1, max=1000, help="Consoles to keep open.")] = 50,
    page: Annotated[str, typer.Option("--page", help="The page that they show, from the merchant's first on.")] = "/payouts",
    rate: Annotated[int, typer.Option("--rate", min=1, max=10_000, help="Creates per second.")] = 20,
    seconds: _Seconds = 8,
    rounds: _Rounds = 3,
    merchants: _Merchants = 1,
) -> OpenBench:
    """Create payouts at a steady rate, alternately while nobody looks and while consoles are open.

    `api_cpu_percent` is the CPU time of the API processes, in percent of one core. The percentiles measure the time from the
    response to a create until a console has the payout's row.
    """
    from sandbox.cli.benches.consoles import ConsolesBench

    return partial(ConsolesBench, consoles=consoles, page=page, rate=rate, seconds=seconds, rounds=rounds, merchants=merchants)


@add_bench(app, "startup", on_sandbox=False)
def startup(
    rounds: _Rounds = 3,
) -> OpenBench:
    """Start the sandbox with new data, and again with the same data, until it is ready.

    The CPU seconds are those of all its processes. It uses embedded stores even if the environment has URLs.
    """
    from sandbox.cli.benches.revision import ROOT
    from sandbox.cli.benches.startup import StartupBench

    return partial(StartupBench, source=ROOT, rounds=rounds)


@add_bench(app, "bulk-credit")
def bulk_credit(
    rows: Annotated[int, typer.Option("--rows", min=1, max=1_000_000, help="Rows of the file, one per user.")] = 100_000,
) -> OpenBench:
    """Credit many wallets from one CSV file. The users are created first, outside the measurement.

    `cpu_us_per_row` is the CPU time of the sandbox's processes per row.
    """
    from sandbox.cli.benches.bulk_credit import BulkCreditBench

    return partial(BulkCreditBench, rows=rows)


@add_bench(app, "growth", on_sandbox=False)
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
    seconds: _Seconds = 10,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="How often to measure each sandbox; the medians count.")
    ] = 3,
    connections: _Connections = 64,
) -> OpenBench:
    """Create payouts at full load, alternately in a sandbox with much data and in one without it.

    age: a sandbox that has created --payouts payouts (default: 120000, ten minutes at 200 per second), and a fresh one.

    neighbors: a merchant with --payouts stored payouts (default: 300000) among --merchants small merchants, and alone.

    payouts: a merchant with --payouts stored payouts (default: 1000000), and one without any.

    There are two ratios, each with the data divided by without it: CPU time per payout, and payouts per second.
    """
    from sandbox.cli.benches.growth import GrowthBench, parse_case

    try:
        parsed_case = parse_case(case)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="CASE") from None
    return partial(
        GrowthBench, case=parsed_case, payouts=payouts, merchants=merchants, webhooks=webhooks, seconds=seconds, rounds=rounds,
        connections=connections,
    )  # fmt: skip


@add_bench(app, "world")
def world(
    payouts: Annotated[int, typer.Option("--payouts", min=1, max=10_000, help="Settled payouts in the world.")] = 1000,
    rounds: _Rounds = 5,
    clients: Annotated[
        int, typer.Option("--clients", min=0, max=64, help="Clients that create payouts for another merchant.")
    ] = 2,
) -> OpenBench:
    """Create a merchant, take a snapshot of its world, restore it and reset it, while another merchant is busy.

    `cpu_us_per_payout` is the CPU time of the whole run, divided by the payouts of both merchants.
    """
    from sandbox.cli.benches.world import WorldBench

    return partial(WorldBench, payouts=payouts, rounds=rounds, clients=clients)


@add_bench(app, "neighbors", on_sandbox=False)
def neighbors(
    processes: Annotated[
        list[int] | None,
        typer.Option("--processes", min=1, max=2, help="API processes of the sandbox. Can be repeated. [default: 1, then 2]"),
    ] = None,
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=600, help="The duration of each phase.")] = 8,
    kinds: Annotated[
        str | None, typer.Option("--kinds", metavar="KINDS", help="Kinds of noise, comma-separated. [default: all]")
    ] = None,
    connections: Annotated[int, typer.Option("--connections", min=1, max=64, help="Connections of each noisy merchant.")] = 2,
) -> OpenBench:
    """Measure the latency of a quiet merchant's creates next to eight merchants that make noise.

    The quiet merchant sends one create after another, at most 20 per second: in calm, then with noise, then in calm again.
    A ratio is the latency with noise divided by the mean of the two in calm. p50 may triple, p95 may be five times as
    long, and no response may be a 5xx. Otherwise the exit code is 1. Both sides run in processes of their own.

    Kinds: creates, metadata (creates with as much metadata as possible), batches (1000 creates each), wrong-items (batches
    of 1000 invalid creates), nested (200,000 brackets), refused (creates with 5000 unknown fields), journal (reads of a
    journal full of these), search (among 5000 payouts), bulk (bulk credits of 500,000 invalid rows), endpoints (created and
    deleted), snapshots (taken and deleted), restore (of snapshots), imports (of 1.5 MB that are not a world), certify
    (receiver tests), webhooks (the time from a create to its webhook, next to one merchant with twelve failing endpoints
    that creates 300 payouts together).
    """
    from sandbox.cli.benches.neighbors import NeighborsBench
    from sandbox.cli.benches.noise import KINDS, parse_kinds

    try:
        names = list(KINDS) if kinds is None else parse_kinds(kinds)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--kinds") from None
    return partial(NeighborsBench, processes=processes or [1, 2], kinds=names, seconds=seconds, connections=connections)


@add_bench(app, "scale", on_sandbox=False)
def scale(
    cluster: Annotated[
        str, typer.Option("--cluster", help="The URL of a distributed database (psp distribute) on this machine: any node.")
    ],
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=600, help="The duration of each measurement.")] = 5,
    rounds: _Rounds = 3,
    idle_seconds: Annotated[
        int, typer.Option("--idle-seconds", min=1, max=600, help="How long to watch the database while nothing happens.")
    ] = 20,
) -> OpenBench:
    """Measure what a payout costs the servers of a distributed database, next to one PostgreSQL server.

    One merchant creates payouts with 1, 16 and 128 requests in flight, in turn on the embedded PostgreSQL and on the
    distributed database. The figures are CPU time of the PostgreSQL processes. Rates need 4 cores for each server.
    """
    from sandbox.cli.benches.scale import ScaleBench

    return partial(ScaleBench, cluster_url=cluster, seconds=seconds, rounds=rounds, idle_seconds=idle_seconds)
