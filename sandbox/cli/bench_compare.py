"""`psp bench compare`: this code and another revision, measured in turn."""

from typing import Annotated, Any

import typer

from sandbox.cli.bench_run import print_result, showing_progress

_REFUSED = {
    "ready_file": "--ready-file: both sandboxes are started for the comparison.",
    "output": "--output: use --json, and redirect it to a file.",
    "preload": "--preload: older revisions have other tables.",
}
"""Options of a bench that a comparison cannot have, and why."""


def compare(
    context: typer.Context,
    revision: Annotated[str, typer.Argument(help="A commit, branch or tag.", metavar="REV")],
    bench: Annotated[str, typer.Argument(help="create, e2e, wait-for, summary, bulk-credit or world.")] = "create",
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=50, help="Measurements of each; the medians count.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, and nothing else.")] = False,
) -> None:
    """Measure another revision of the repository and this code in turn, and print the ratios.

    The bench's own options follow its name: psp bench compare main~1 create --seconds 5 --webhooks 3. A ratio is this
    code's figure divided by the revision's.

    The revision is checked out in a temporary folder, and runs in this Python environment. Both sandboxes run at the
    same time, on stores of their own; one client measures them alternately. `create` leaves out pgbench.
    """
    options = _options_of(context, bench)
    from sandbox.bench.compare import compare, compare_json, compare_report, opened_bench

    try:
        opened = opened_bench(bench, options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with showing_progress(as_json) as shown:
        shown.start("starting", 2 * rounds)
        result = compare(revision, bench, opened, rounds, options["api_processes"], options["workers"], shown.advance)
    figures = compare_json(result)
    print_result(figures, figures, compare_report, result, as_json, None)


def _options_of(context: typer.Context, bench: str) -> dict[str, Any]:
    """What the bench's own command makes of the words left over. Raises BadParameter."""
    assert context.parent is not None  # it is a command of a group
    benches: dict[str, Any] = {
        name: command
        for name, command in context.parent.command.commands.items()  # type: ignore[attr-defined]  # it is a group
        if name != context.info_name
    }
    if bench not in benches:
        raise typer.BadParameter(f"{bench!r} is not a bench that can be compared. Choose from: {', '.join(benches)}.")
    with benches[bench].make_context(bench, list(context.args), parent=context) as own:
        found: dict[str, Any] = own.params
    for name, reason in _REFUSED.items():
        if found.get(name):
            raise typer.BadParameter(f"A comparison has no {reason}")
    return found
