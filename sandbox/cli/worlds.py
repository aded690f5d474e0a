"""`psp reset` and `psp snapshots`: a merchant's world taken back, put away, and put back."""

from typing import Annotated, Any

import typer

from sandbox.cli.client import Client, Cursor, Limit, Shown, listed, with_client

app = typer.Typer(help="Put the merchant's world away, and come back to it.", no_args_is_help=True)
_Id = Annotated[str, typer.Argument(help="The snapshot's id.")]
_PATH = "/sandbox/v1/snapshots"


@with_client
def reset(client: Client) -> Shown:
    """Take the merchant's world back to its beginning. Exit code 0: done; 1: refused; 2: wrong usage.

    API keys, webhook endpoints and snapshots stay.
    """
    found = client.post("/sandbox/v1/reset")
    balance = found["balance"]
    return Shown(found, f"Reset. The balance is {balance['balance']} {balance['currency']}.")


@app.command("create")
@with_client
def create(
    client: Client,
    name: Annotated[str, typer.Argument(help="What to call it.")] = "snapshot",
) -> Shown:
    """Put the world away. Exit code 0: done; 1: refused; 2: wrong usage."""
    snapshot = client.post(_PATH, {"name": name})
    return Shown(snapshot, _line(snapshot))


@app.command("list")
@with_client
def list_(client: Client, limit: Limit = 20, cursor: Cursor = None) -> Shown:
    """List snapshots, newest first. Exit code 0: listed; 1: refused; 2: wrong usage."""
    page = client.get(_PATH, limit=limit, cursor=cursor)
    return listed(page, "id", "clock_at", "rows", "name")


@app.command("restore")
@with_client
def restore(client: Client, snapshot_id: _Id) -> Shown:
    """Make the world what it was. Exit code 0: done; 1: not found, or refused; 2: wrong usage."""
    found = client.post(f"{_PATH}/{snapshot_id}/restore")
    clock = "frozen at" if found["frozen"] else "running from"
    return Shown(found, f"Restored {found['name']}, {found['rows']} rows. The clock is {clock} {found['now']}.")


@app.command("delete")
@with_client
def delete(client: Client, snapshot_id: _Id) -> Shown:
    """Delete a snapshot. Exit code 0: deleted; 1: not found; 2: wrong usage."""
    client.ask("DELETE", f"{_PATH}/{snapshot_id}")
    return Shown({"deleted": snapshot_id}, f"Deleted {snapshot_id}.")


def _line(snapshot: dict[str, Any]) -> str:
    return f"{snapshot['id']}  {snapshot['clock_at']}  {snapshot['rows']:>7} rows  {snapshot['name']}"
