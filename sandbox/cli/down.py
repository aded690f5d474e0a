"""`psp down`: stop a sandbox that `psp up` started."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli.failures import not_met, refused


def down(
    data: Annotated[Path, typer.Option("--data", help="The data directory of the sandbox to stop.")] = Path(".psp"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the response as JSON and nothing else.")] = False,
) -> None:
    """Stop the sandbox that `psp up` or `make up` started on a data directory, and wait until it has ended.

    The exit code is 1 if nothing is running there or it belongs to another user, and 4 if it does not stop in time.
    """
    from sandbox.server.runtime.running import NotEndedError, NotRunningError, stop

    try:
        process = stop(data)
    except (NotRunningError, NotEndedError, PermissionError) as error:
        kind = not_met if isinstance(error, NotEndedError) else refused
        raise kind(f"psp down: {error}") from None
    typer.echo(json.dumps({"stopped": True, "pid": process}) if as_json else "stopped")
