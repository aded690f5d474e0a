"""`psp down`: stop what `psp up` started."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli.failures import not_met, refused


def down(
    data: Annotated[Path, typer.Option("--data", help="The data folder of the run to stop.")] = Path(".psp"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the response as JSON and nothing else.")] = False,
) -> None:
    """Stop the sandbox that `psp up` or `make up` runs on a data folder, and wait until all of it has ended.

    If nothing runs there, or it is not yours to stop, the exit code is 1; if it does not end in time, 4.
    """
    from sandbox.runtime.running import NotEndedError, NotRunningError, stop

    try:
        process = stop(data)
    except (NotRunningError, NotEndedError, PermissionError) as error:
        kind = not_met if isinstance(error, NotEndedError) else refused
        raise kind(f"psp down: {error}") from None
    typer.echo(json.dumps({"stopped": True, "pid": process}) if as_json else "stopped")
