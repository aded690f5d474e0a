"""`psp bench scale`: measure what a distributed database costs."""

from dataclasses import asdict
from typing import Annotated

import typer

from sandbox.cli.bench_run import Json, Output, print_result, show_progress


def scale(
    cluster: Annotated[
        str, typer.Option("--cluster", help="The URL of a distributed database (psp distribute) on this machine: any node.")
    ],
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=600, help="The duration of each measurement.")] = 5,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="How often to repeat each measurement; the medians count.")
    ] = 3,
    idle_seconds: Annotated[
        int, typer.Option("--idle-seconds", min=1, max=600, help="How long to watch the database while nothing happens.")
    ] = 20,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Measure what a payout costs the servers of a distributed database, next to one PostgreSQL server.

    One merchant creates payouts with 1, 16 and 128 requests in flight, in turn on the embedded PostgreSQL and on the
    distributed database. The figures are CPU time of the PostgreSQL processes. Rates need 4 cores for each server.
    """
    from sandbox.bench import scale_report
    from sandbox.bench.scale import ScaleBench

    with show_progress(as_json) as shown:
        bench = ScaleBench(cluster, seconds, rounds, idle_seconds, shown.advance)
        shown.start("starting", bench.steps)
        result = bench.run()
    figures = scale_report.figures(result)
    print_result(figures, asdict(result) | figures, scale_report.render, result, as_json, output)
