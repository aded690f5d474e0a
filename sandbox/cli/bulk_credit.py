"""`psp bulk-credit FILE`: upload a CSV file, and wait until its rows are credited."""

import time
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from sandbox.cli.client import Client, Output, as_table, with_client
from sandbox.cli.failures import not_met, refused
from sandbox.cli.options import Cursor, Limit, path_part
from sandbox.domain.enumerations import ItemStatus

_DONE: Final = frozenset({"COMPLETED", "PARTIALLY_COMPLETED", "FAILED"})
_PATH: Final = "/api/v1/wallet/bulk-credit"
_SHOWN: Final = 5


@with_client
def bulk_credit(
    client: Client,
    file: Annotated[
        Path | None, typer.Argument(help="A CSV file with the header uuid,amount.", dir_okay=False, exists=True)
    ] = None,
    retry: Annotated[
        str | None,
        typer.Option("--retry", metavar="ACTIVITY_ID", help="Retry the failed rows of this bulk credit.", callback=path_part),
    ] = None,
    shown: Annotated[
        str | None,
        typer.Option("--show", metavar="ACTIVITY_ID", help="Show the progress of this bulk credit.", callback=path_part),
    ] = None,
    items: Annotated[
        str | None,
        typer.Option("--items", metavar="ACTIVITY_ID", help="List the rows of this bulk credit.", callback=path_part),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List bulk credits, newest first.")] = False,
    status: Annotated[ItemStatus | None, typer.Option("--status", help="With --items: only rows in this state.")] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="With --items: only rows that equal an earlier row.")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for it to complete.")] = 600,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Output:
    """Credit many wallets from a CSV file and wait until it is done, or show earlier bulk credits.

    The exit code is 1 if rows are invalid or fail, and 4 if it is not done in time.
    """
    if (file is None) + (retry is None) + (shown is None) + (items is None) + (not listed) != 4:
        raise typer.BadParameter("Give exactly one of FILE, --retry, --show, --items and --list.")
    if (status is not None or duplicates) and items is None:
        raise typer.BadParameter("--status and --duplicates need --items.")
    if listed:
        page = client.get(_PATH, limit=limit, cursor=cursor)
        return as_table(page, "activity_id", "status", "total", "succeeded", "failed", "invalid", "duplicates", "created_at")
    if items is not None:
        only = "only" if duplicates else None
        page = client.get(f"{_PATH}/{items}/items", status=status, duplicates=only, limit=limit, cursor=cursor)
        return as_table(page, "line", "uuid", "amount", "status", "same_as_line", "error")
    if shown is not None:
        activity = client.get(f"{_PATH}/{shown}")
        return Output(activity, _line(activity))
    if file is not None:
        with file.open("rb") as content:
            activity_id = upload(client, file.name, content)
    else:
        activity_id = client.post(f"{_PATH}/retry", {"activity_id": retry})["activity_id"]
    return _outcome(client, watch(client, activity_id, timeout))


def upload(client: Client, name: str, content: IO[bytes]) -> str:
    """Start a bulk credit, and return its id. Raises Failure."""
    activity_id: str = client.post(_PATH, files={"file": (name, content, "text/csv")})["activity_id"]
    return activity_id


def watch(client: Client, activity_id: str, timeout: float) -> dict[str, Any]:
    """Wait until a bulk credit is done, and return it. Shows a progress bar on a terminal.

    Raises Failure if it takes longer than `timeout` seconds.
    """
    from rich.console import Console
    from rich.progress import Progress

    deadline = time.monotonic() + timeout
    with Progress(console=Console(stderr=True), disable=not client.is_watched, transient=True) as progress:
        bar = progress.add_task("Crediting", total=None)
        while True:
            activity: dict[str, Any] = client.get(f"{_PATH}/{activity_id}")
            done = activity["succeeded"] + activity["failed"] + activity["invalid"]
            progress.update(bar, total=activity["total"], completed=done)
            if activity["status"] in _DONE:
                return activity
            if time.monotonic() > deadline:
                raise not_met(f"Bulk credit {activity_id} is still {activity['status']} after {timeout:g} s: {done} rows done.")
            time.sleep(0.1)


def _outcome(client: Client, activity: dict[str, Any]) -> Output:
    bad = activity["invalid"] + activity["failed"]
    lines = [_line(activity)]
    for count, shown in (
        ("failed", {"status": "FAILED"}),
        ("invalid", {"status": "INVALID"}),
        ("duplicates", {"duplicates": "only"}),
    ):
        if activity[count]:
            found = client.get(f"{_PATH}/{activity['activity_id']}/items", limit=_SHOWN, **shown)["data"]
            lines += [
                _row(item, item["error"] if "status" in shown else f"equals line {item['same_as_line']}") for item in found
            ]
    failure = refused(f"{bad} of {activity['total']} rows were not credited.") if bad else None
    return Output(activity, "\n".join(lines), failure)


def _row(item: dict[str, Any], remark: str) -> str:
    return f"  line {item['line']}: {item['uuid']},{item['amount']}: {remark}"


def _line(activity: dict[str, Any]) -> str:
    return (
        f"{activity['status']}: {activity['succeeded']} of {activity['total']} rows credited, {activity['failed']} failed, "
        f"{activity['invalid']} invalid, {activity['duplicates']} equal to an earlier row."
    )
