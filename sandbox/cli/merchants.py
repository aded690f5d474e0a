"""`psp merchants`, for the operator, and `psp keys`, for an admin of a merchant."""

from typing import Annotated

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_fields, as_table, with_client, with_operator
from sandbox.cli.dates import moment
from sandbox.cli.options import Paging, given, identifier
from sandbox.domain.choices import Role

app = App("Merchants. Each has its own isolated data and clock. Needs the operator's key.")
keys_app = App("The merchant's API keys. Needs an admin key.")
_MERCHANTS = "/sandbox/v1/merchants"
_KEYS = "/sandbox/v1/keys"


@app.command("list")
@with_operator
def list_(client: Client, paging: Paging) -> Output:
    """List merchants, newest first."""
    return as_table(client.get(_MERCHANTS, **paging), "merchant_id", "name", "seed", "created_at")


@app.command("create")
@with_operator
def create(
    client: Client,
    name: Annotated[str, typer.Argument(help="The merchant's name.")],
    opening_balance: Annotated[str | None, typer.Option("--opening-balance", help="The opening balance.")] = None,
    webhook_url: Annotated[str | None, typer.Option("--webhook-url", help="The URL of its first webhook endpoint.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Make ids, jitter and faults repeatable.")] = None,
    frozen_at: Annotated[
        str | None, typer.Option("--frozen-at", help="Freeze its clock at this time.", callback=moment)
    ] = None,
) -> Output:
    """Create a merchant. Its key and secrets are shown only in this response."""
    body = {
        "name": name,
        **given(opening_balance=opening_balance, webhook_url=webhook_url, seed=seed, frozen_at=frozen_at),
    }
    return as_fields(client.post(_MERCHANTS, body))


@app.command("delete")
@with_operator
def delete(client: Client, merchant_id: Annotated[str, identifier("The merchant's id.")]) -> Output:
    """Delete a merchant and all its data."""
    client.request_json("DELETE", f"{_MERCHANTS}/{merchant_id}")
    return Output({"deleted": merchant_id}, f"Deleted {merchant_id}.")


@keys_app.command("list")
@with_client
def list_keys(client: Client, paging: Paging) -> Output:
    """List active keys, newest first."""
    return as_table(client.get(_KEYS, **paging), "id", "role", "name", "created_at")


@keys_app.command("create")
@with_client
def create_key(
    client: Client,
    role: Annotated[Role, typer.Argument(help="The key's role: a member cannot approve, reconcile or manage keys.")],
    name: Annotated[str | None, typer.Option("--name", help="A name for the key.")] = None,
) -> Output:
    """Create a key. It is shown only in this response."""
    return as_fields(client.post(_KEYS, {"role": role, **given(name=name)}))


@keys_app.command("revoke")
@with_client
def revoke_key(client: Client, key_id: Annotated[str, identifier("The key's id.")]) -> Output:
    """Revoke a key; it stops working within a second. The last admin key cannot be revoked."""
    client.request_json("DELETE", f"{_KEYS}/{key_id}")
    return Output({"revoked": key_id}, f"Revoked {key_id}.")
