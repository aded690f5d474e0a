"""`psp directory` and `psp verify-account`: list banks and wallet providers, and check an account."""

from typing import Annotated, Any

import typer

from sandbox.cli.app import Shown
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.derived import command_of
from sandbox.cli.options import Bank, Wallet, destination


def _codes(found: dict[str, Any]) -> str:
    lines = [f"{bank['code']:<10} {bank['iban_code']:<5} {bank['name']}" for bank in found["banks"]]
    lines += [f"{wallet['code']:<10} {'':<5} {wallet['name']} (wallet)" for wallet in found["wallets"]]
    return "\n".join(lines)


directory = command_of("directory", shown=Shown(_codes))


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
