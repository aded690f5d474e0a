"""`psp directory` and `psp verify-account`: list banks and wallet providers, and check an account."""

from typing import Annotated

import typer

from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.options import Bank, Wallet, destination


@with_client
def directory(client: Client) -> Output:
    """List the banks and wallet providers that payouts can go to."""
    found = client.get("/api/v1/directory")
    lines = [f"{bank['code']:<10} {bank['iban_code']:<5} {bank['name']}" for bank in found["banks"]]
    lines += [f"{wallet['code']:<10} {'':<5} {wallet['name']} (wallet)" for wallet in found["wallets"]]
    return Output(found, "\n".join(lines))


@with_client
def verify_account(
    client: Client,
    account: Annotated[str, typer.Argument(help="The account's number.")],
    bank: Bank = None,
    wallet: Wallet = None,
) -> Output:
    """Check whether an account can be paid, and show its title. The exit code is 0 even if it cannot be paid."""
    found = client.post("/api/v1/verify-account", destination(account, bank, wallet))
    verdict = f"valid: {found['account_title']}" if found["valid"] else f"not valid: {found['reason']}"
    return Output(found, f"{account} is {verdict}")
