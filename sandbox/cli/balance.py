"""`psp balance`: show the merchant's balance and ledger entries, and add money."""

from typing import Annotated

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Shown, listed, members_of, with_client
from sandbox.cli.options import CreatedPaging
from sandbox.domain.choices import Account

app = App("The merchant's balance.")


@app.command("show")
@with_client
def show(client: Client) -> Shown:
    """Show the balance: available, locked and total."""
    return members_of(client.get("/api/v1/balance"))


@app.command("history")
@with_client
def history(
    client: Client,
    paging: CreatedPaging,
    payout_id: Annotated[str | None, typer.Option("--payout-id", help="Only entries for this payout.")] = None,
    account: Annotated[Account | None, typer.Option("--account", help="Only entries on this account.")] = None,
) -> Shown:
    """List ledger entries, newest first."""
    page = client.get(
        "/api/v1/balance/history",
        payout_id=payout_id,
        account=account,
        **paging,
    )
    return listed(page, "created_at", "account", "direction", "amount", "balance_after", "reason", "payout_id")


@app.command("top-up")
@with_client
def top_up(client: Client, amount: Annotated[str, typer.Argument(help="The amount, such as 1500.00.")]) -> Shown:
    """Add money to the available balance."""
    return members_of(client.post("/sandbox/v1/balance/top-up", {"amount": amount}))
