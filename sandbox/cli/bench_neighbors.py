"""`psp bench neighbors`: measure whether one merchant feels its neighbors."""

from dataclasses import asdict
from typing import Annotated

import typer

from sandbox.cli.bench_run import Json, Output, print_result, show_progress
from sandbox.cli.failures import check_failed


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
    as_json: Json = False,
    output: Output = None,
) -> None:
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
    from sandbox.bench import neighbors_report as report
    from sandbox.bench.neighbors import NeighborsBench
    from sandbox.bench.noise import KINDS, parse_kinds

    try:
        names = list(KINDS) if kinds is None else parse_kinds(kinds)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--kinds") from None
    with show_progress(as_json) as shown:
        bench = NeighborsBench(processes or [1, 2], names, seconds, connections, shown.advance)
        shown.start("starting", bench.steps)
        result = bench.run()
    figures = report.figures(result)
    print_result(figures, asdict(result) | figures, report.render, result, as_json, output)
    if result.exceeded:
        count = len(result.exceeded)
        raise check_failed(
            f"psp bench neighbors: {count} {'figures exceed their limits' if count > 1 else 'figure exceeds its limit'}."
        )
