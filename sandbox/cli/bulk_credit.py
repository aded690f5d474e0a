"""`psp bulk-credit FILE`: upload a CSV, and watch until its rows are credited."""

import time
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, Client, ReadyFile, Url, connect, fail, is_watched, show

_DONE: Final = frozenset({"COMPLETED", "PARTIALLY_COMPLETED", "FAILED"})
_PATH: Final = "/api/v1/wallet/bulk-credit"
_SHOWN: Final = 5


def bulk_credit(
    file: Annotated[Path, typer.Argument(help="A CSV file with the header uuid,amount.", dir_okay=False, exists=True)],
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the end.")] = 600,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Credit many wallets from a CSV file.

    Exit code 0: every row was credited; 1: some were invalid or failed, or it could not be done; 2: wrong usage.
    """
    client = connect(url, api_key, ready_file)
    with file.open("rb") as content:
        activity_id = upload(client, file.name, content)
    activity = watch(client, activity_id, timeout, is_shown=is_watched(as_json))
    bad = activity["invalid"] + activity["failed"]
    lines = [
        f"{activity['status']}: {activity['succeeded']} of {activity['total']} rows credited, {activity['failed']} failed, "
        f"{activity['invalid']} invalid ({activity['duplicates']} of them duplicates)."
    ]
    for status in ("FAILED", "INVALID", "DUPLICATE") if bad else ():
        items = client.get(f"{_PATH}/{activity_id}/items", status=status, limit=_SHOWN)["data"]
        lines += [f"  line {item['line']}: {item['uuid']},{item['amount']}: {item['error']}" for item in items]
    show(activity, as_json=as_json, text="\n".join(lines))
    if bad:
        raise typer.Exit(1)


def upload(client: Client, name: str, content: IO[bytes]) -> str:
    """Begin a bulk credit; returns its id."""
    activity_id: str = client.post(_PATH, files={"file": (name, content, "text/csv")})["activity_id"]
    return activity_id


def watch(client: Client, activity_id: str, timeout: float, *, is_shown: bool) -> dict[str, Any]:
    """Wait until a bulk credit is done, with a progress bar if it is shown; ends the command if it is not in time."""
    until = time.monotonic() + timeout
    with Progress(console=Console(stderr=True), disable=not is_shown, transient=True) as progress:
        bar = progress.add_task("Crediting", total=None)
        while True:
            activity: dict[str, Any] = client.get(f"{_PATH}/{activity_id}")
            done = activity["succeeded"] + activity["failed"] + activity["invalid"]
            progress.update(bar, total=activity["total"], completed=done)
            if activity["status"] in _DONE:
                return activity
            if time.monotonic() > until:
                fail(f"Bulk credit {activity_id} is {activity['status']} after {timeout:g} s, with {done} rows done.")
            time.sleep(0.1)
