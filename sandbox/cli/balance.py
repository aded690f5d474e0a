"""`psp balance`: show the merchant's balance and ledger entries, and add money."""

from typing import Annotated

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_fields, as_table, with_client
from sandbox.cli.options import CreatedPaging
from sandbox.cli.references import PAYOUT
from sandbox.domain.choices import Account

app = App("The merchant's balance.")


@app.command("show")
@with_client
def show(client: Client) -> Output:
    """Show the balance: available, locked and total."""
    return as_fields(client.get("/api/v1/balance"))


@app.command("history")
@with_client
def history(
    client: Client,
    paging: CreatedPaging,
    payout_id: Annotated[
        str | None, typer.Option("--payout-id", help="Only entries for the payout with this id or reference."), PAYOUT
    ] = None,
    account: Annotated[Account | None, typer.Option("--account", help="Only entries on this account.")] = None,
) -> Output:
    """List ledger entries, newest first."""
    page = client.get(
        "/api/v1/balance/history",
        payout_id=payout_id,
        account=account,
        **paging,
    )
    return as_table(page, "created_at", "account", "direction", "amount", "balance_after", "reason", "payout_id")


@app.command("top-up")
@with_client
def top_up(client: Client, amount: Annotated[str, typer.Argument(help="The amount, such as 1500.00.")]) -> Output:
    """Add money to the available balance."""
    return as_fields(client.post("/sandbox/v1/balance/top-up", {"amount": amount}))
