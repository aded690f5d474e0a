"""`psp down`: stop what `psp up` started."""

import json
from pathlib import Path
from typing import Annotated

import typer


def down(
    data: Annotated[Path, typer.Option("--data", help="The data folder of the run to stop.")] = Path(".psp"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON, and nothing else.")] = False,
) -> None:
    """Stop the sandbox that `psp up` or `make up` runs on a data folder, and wait until all of it has ended.

    Exit code 0: stopped; 1: nothing runs there, or it is not yours to stop; 2: wrong usage; 4: it did not end in time.
    """
    from sandbox.runtime.running import NotEndedError, NotRunningError, stop

    try:
        process = stop(data)
    except (NotRunningError, NotEndedError, PermissionError) as error:
        typer.echo(f"psp down: {error}", err=True)
        raise typer.Exit(4 if isinstance(error, NotEndedError) else 1) from None
    typer.echo(json.dumps({"stopped": True, "pid": process}) if as_json else "stopped")
