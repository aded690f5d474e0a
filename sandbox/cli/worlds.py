"""`psp reset` and `psp snapshots`: a merchant's world taken back, put away, and put back."""

from typing import Annotated, Any

import typer

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, ReadyFile, Url, connect, show

app = typer.Typer(help="Put the merchant's world away, and come back to it.", no_args_is_help=True)
_Id = Annotated[str, typer.Argument(help="The snapshot's id.")]
_PATH = "/sandbox/v1/snapshots"


def reset(url: Url = DEFAULT_URL, api_key: ApiKey = None, ready_file: ReadyFile = None, as_json: AsJson = False) -> None:
    """Take the merchant's world back to its beginning. Exit code 0: done; 1: refused; 2: wrong usage.

    API keys, webhook endpoints and snapshots stay.
    """
    found = connect(url, api_key, ready_file).post("/sandbox/v1/reset")
    balance = found["balance"]
    show(found, as_json=as_json, text=f"Reset. The balance is {balance['balance']} {balance['currency']}.")


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What to call it.")] = "snapshot",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Put the world away. Exit code 0: done; 1: refused; 2: wrong usage."""
    snapshot = connect(url, api_key, ready_file).post(_PATH, {"name": name})
    show(snapshot, as_json=as_json, text=_line(snapshot))


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="How many at most.")] = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """List snapshots, newest first. Exit code 0: listed; 1: refused; 2: wrong usage."""
    page = connect(url, api_key, ready_file).get(_PATH, limit=limit)
    show(page, as_json=as_json, text="\n".join(map(_line, page["data"])) or "There are no snapshots.")


@app.command("restore")
def restore(
    snapshot_id: _Id,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the world what it was. Exit code 0: done; 1: not found, or refused; 2: wrong usage."""
    found = connect(url, api_key, ready_file).post(f"{_PATH}/{snapshot_id}/restore")
    clock = "frozen at" if found["frozen"] else "running from"
    show(found, as_json=as_json, text=f"Restored {found['name']}, {found['rows']} rows. The clock is {clock} {found['now']}.")


@app.command("delete")
def delete(
    snapshot_id: _Id,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Delete a snapshot. Exit code 0: deleted; 1: not found; 2: wrong usage."""
    connect(url, api_key, ready_file).ask("DELETE", f"{_PATH}/{snapshot_id}")
    show({"deleted": snapshot_id}, as_json=as_json, text=f"Deleted {snapshot_id}.")


def _line(snapshot: dict[str, Any]) -> str:
    return f"{snapshot['id']}  {snapshot['clock_at']}  {snapshot['rows']:>7} rows  {snapshot['name']}"
