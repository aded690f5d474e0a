"""`psp aggregator`: what was read from a vendor, how reading it went, and rows that could not be understood."""

from typing import Annotated

import typer

from sandbox.cli.client import Client, Cursor, Limit, Shown, listed, with_client

app = typer.Typer(help="Balances aggregated from a vendor's feed.", no_args_is_help=True)
_PATH = "/aggregator/v1"


@app.command("user")
@with_client
def user(client: Client, user_id: Annotated[str, typer.Argument(help="The user's id, as the vendor has it.")]) -> Shown:
    """Show a user's balance by the vendor's rows. Exit code 0: shown; 1: the vendor told of no such user; 2: wrong usage."""
    found = client.get(f"{_PATH}/users/{user_id}")
    return Shown(found, "  ".join(f"{name} {value}" for name, value in found.items()))


@app.command("waiting")
@with_client
def waiting(client: Client, limit: Limit = 20, cursor: Cursor = None) -> Shown:
    """List users who asked for more than they were paid. Exit code 0: listed; 1: refused; 2: wrong usage."""
    return listed(client.get(f"{_PATH}/payouts", limit=limit, cursor=cursor), "user_id", "requested_payout")


@app.command("source")
@with_client
def source(
    client: Client,
    set_: Annotated[str | None, typer.Option("--set", help="Read from the vendor at this URL from now on.")] = None,
    own: Annotated[bool, typer.Option("--own", help="Read our own feed again.")] = False,
    header: Annotated[
        list[str] | None, typer.Option("--header", help="Sent to the vendor with each call, such as X-API-KEY=secret.")
    ] = None,
) -> Shown:
    """Show where transactions are read from, or read from elsewhere, which drops what came from the place before.

    Exit code 0: done; 1: refused; 2: wrong usage.
    """
    if set_ is not None and own:
        raise typer.BadParameter("Give one of --set and --own.")
    if header and set_ is None:
        raise typer.BadParameter("A --header is sent to the vendor that --set names; give both.")
    for pair in header or []:
        if "=" not in pair:
            raise typer.BadParameter("A --header is NAME=VALUE.")
    headers = dict(pair.partition("=")[::2] for pair in header or [])
    if set_ is not None or own:
        found = client.ask("PUT", f"{_PATH}/source", json={"url": set_, "headers": headers})
    else:
        found = client.get(f"{_PATH}/source")
    sent = f", with {', '.join(found['header_names'])}" if found["header_names"] else ""
    return Shown(found, f"Transactions are read from {found['url'] or 'our own feed'}{sent}.")


@app.command("fetches")
@with_client
def fetches(client: Client, limit: Limit = 20, cursor: Cursor = None) -> Shown:
    """List the calls to the vendor, newest first. Exit code 0: listed; 1: refused; 2: wrong usage."""
    page = client.get(f"{_PATH}/fetches", limit=limit, cursor=cursor)
    return listed(page, "at", "page", "outcome", "status", "rows", "new_rows", "dead_letters", "duration_ms", "error")


@app.command("dead-letters")
@with_client
def dead_letters(client: Client, limit: Limit = 20, cursor: Cursor = None) -> Shown:
    """List the vendor's rows that could not be understood, newest first. Exit code 0: listed; 1: refused; 2: wrong usage."""
    return listed(client.get(f"{_PATH}/dead-letters", limit=limit, cursor=cursor), "id", "created_at", "reason", "raw")


@app.command("replay")
@with_client
def replay(client: Client) -> Shown:
    """Try all dead letters again. Exit code 0: none is left; 1: some stay, or refused; 2: wrong usage."""
    found = client.post(f"{_PATH}/dead-letters/replay")
    text = f"{found['replayed']} were understood this time; {found['remaining']} stay."
    return Shown(found, text, 1 if found["remaining"] else 0)
