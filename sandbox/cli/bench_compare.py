"""`psp bench compare`: measure this code and another revision alternately."""

from typing import Annotated, Any

import typer

from sandbox.cli.bench_run import Json, print_result, show_progress

_REFUSED = {
    "ready_file": "--ready-file does not work in a comparison, which starts both sandboxes itself.",
    "output": "--output does not work in a comparison; redirect the output of --json to a file.",
    "preload": "--preload does not work in a comparison, because older revisions have other tables.",
}
"""Bench options that a comparison refuses, with the message."""


def compare(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A commit, branch or tag.", metavar="REV")],
    bench: Annotated[
        str, typer.Argument(help="create, e2e, wait-for, summary, reads, startup, bulk-credit or world.")
    ] = "create",
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=50, help="How often to measure both; the medians count.")] = 3,
    as_json: Json = False,
) -> None:
    """Measure another revision of the repository and this code alternately, and print the ratios.

    The bench's own options follow its name: psp bench compare main~1 create --seconds 5 --webhooks 3. A ratio is this
    code's figure divided by the revision's.

    The revision is checked out in a temporary directory, and runs in this Python environment. Both sandboxes run at the
    same time, each on its own stores, and one client measures them alternately. `create` skips pgbench.
    """
    options = _options_of(context, bench)
    from sandbox.bench.compare import bench_preparer, compare, compare_json, compare_report

    try:
        prepare = bench_preparer(bench, options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with show_progress(as_json) as shown:
        shown.start("starting", 2 * rounds)
        result = compare(
            revision, bench, prepare, rounds, options.get("api_processes", 1), options.get("workers", 1), shown.advance
        )
    figures = compare_json(result)
    print_result(figures, figures, compare_report, result, as_json, None)


def _options_of(context: typer.Context, bench: str) -> dict[str, Any]:
    """Parse the remaining arguments as the options of the bench's own command. Raises BadParameter."""
    assert context.parent is not None  # this command is in a group
    benches: dict[str, Any] = {
        name: command
        for name, command in context.parent.command.commands.items()  # type: ignore[attr-defined]  # the parent is a group
        if name
        not in (context.info_name, "growth", "neighbors", "scale", "webhooks")  # the last four are comparisons themselves
    }
    if bench not in benches:
        raise typer.BadParameter(f"{bench!r} is not a bench that can be compared. Choose from: {', '.join(benches)}.")
    with benches[bench].make_context(bench, list(context.args), parent=context) as own:
        options: dict[str, Any] = own.params
    for name, message in _REFUSED.items():
        if options.get(name):
            raise typer.BadParameter(message)
    return options
