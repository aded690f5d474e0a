"""`psp reset` and `psp snapshots`: reset a merchant's world, save it, and restore it."""

from typing import Annotated

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_fields, as_table, with_client
from sandbox.cli.options import Paging, Yes
from sandbox.cli.references import SnapshotId

app = App("Snapshots of the merchant's world.")
_PATH = "/sandbox/v1/snapshots"


@with_client
def reset(client: Client, yes: Yes = False) -> Output:
    """Reset the merchant to its initial state. Ask for confirmation on a terminal.

    API keys, webhook endpoints and snapshots are kept.
    """
    if not yes and client.may_prompt:
        typer.confirm(f"Delete all payouts, users and events of this merchant at {client.url}?", abort=True, err=True)
    found = client.post("/sandbox/v1/reset")
    balance = found["balance"]
    return Output(found, f"Reset done. The balance is {balance['balance']} {balance['currency']}.")


@app.command("create")
@with_client
def create(
    client: Client,
    name: Annotated[str, typer.Argument(help="The snapshot's name.")] = "snapshot",
) -> Output:
    """Take a snapshot of the merchant's world."""
    return as_fields(client.post(_PATH, {"name": name}))


@app.command("list")
@with_client
def list_(client: Client, paging: Paging) -> Output:
    """List snapshots, newest first."""
    page = client.get(_PATH, **paging)
    return as_table(page, "name", "id", "clock_at", "rows")


@app.command("get")
@with_client
def get(client: Client, snapshot_id: SnapshotId) -> Output:
    """Show a snapshot."""
    return as_fields(client.get(f"{_PATH}/{snapshot_id}"))


@app.command("restore")
@with_client
def restore(client: Client, snapshot_id: SnapshotId) -> Output:
    """Restore the merchant's world from a snapshot."""
    found = client.post(f"{_PATH}/{snapshot_id}/restore")
    clock = "frozen at" if found["frozen"] else "running from"
    return Output(found, f"Restored {found['name']}, {found['rows']} rows. The clock is {clock} {found['now']}.")


@app.command("delete")
@with_client
def delete(client: Client, snapshot_id: SnapshotId) -> Output:
    """Delete a snapshot."""
    client.request_json("DELETE", f"{_PATH}/{snapshot_id}")
    return Output({"deleted": snapshot_id}, f"Deleted {snapshot_id}.")
