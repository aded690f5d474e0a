"""`psp reset` and `psp snapshots`: reset a merchant's world, save it, and restore it."""

from typing import Any

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.options import Yes

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


@app.shows("restore")
def _restored(found: dict[str, Any]) -> str:
    clock = "frozen at" if found["frozen"] else "running from"
    return f"Restored {found['name']}, {found['rows']} rows. The clock is {clock} {found['now']}."
