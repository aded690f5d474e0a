"""`psp bench compare`: measure this code and another revision alternately."""

import inspect
from typing import Annotated, Any

import typer

from sandbox.cli.bench_run import SHARED_OPTIONS, Json, print_result, show_progress

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
        str, typer.Argument(help="create, lone, e2e, wait-for, summary, reads, startup, bulk-credit or world.")
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
    command = _command(context, bench)
    with command.make_context(bench, list(context.args), parent=context) as own:
        options: dict[str, Any] = own.params
    for name, message in _REFUSED.items():
        if options.get(name):
            raise typer.BadParameter(message)
    from sandbox.cli.benches.compare import bench_preparer, compare

    # A bench's command wraps a function that takes the bench's own options.
    own_options = {name: value for name, value in options.items() if name not in SHARED_OPTIONS}
    prepare = bench_preparer(bench, inspect.unwrap(command.callback)(**own_options))
    with show_progress(as_json) as progress:
        result = compare(revision, bench, prepare, rounds, options.get("api_processes", 1), options.get("workers", 1), progress)
    print_result(result, as_json)


def _command(context: typer.Context, bench: str) -> Any:
    """Return the command of a bench that can be compared. Raises BadParameter."""
    assert context.parent is not None  # this command is in a group
    commands: dict[str, Any] = context.parent.command.commands  # type: ignore[attr-defined]  # the parent is a group
    # The others are comparisons themselves.
    benches = [name for name in commands if name not in (context.info_name, "growth", "neighbors", "scale", "webhooks")]
    if bench not in benches:
        raise typer.BadParameter(f"{bench!r} is not a bench that can be compared. Choose from: {', '.join(benches)}.")
    return commands[bench]
