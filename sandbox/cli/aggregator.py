"""`psp aggregator`: balances read from a vendor, the calls to the vendor, and rows that could not be parsed."""

from typing import Annotated, Any

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_table, with_client
from sandbox.cli.failures import refused
from sandbox.cli.options import pairs

app = App("Balances aggregated from a vendor's feed.")
_PATH = "/aggregator/v1"


@app.command("source")
@with_client
def source(
    client: Client,
    set_: Annotated[str | None, typer.Option("--set", help="Read from the vendor at this URL.")] = None,
    own: Annotated[bool, typer.Option("--own", help="Read the sandbox's own feed again.")] = False,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", metavar="NAME=VALUE", help="Send this header to the vendor, such as X-API-KEY=secret. Can be repeated."
        ),
    ] = None,
) -> Output:
    """Show or change the source of the transactions. A change deletes everything read before."""
    if set_ is not None and own:
        raise typer.BadParameter("Give --set or --own, not both.")
    if header and set_ is None:
        raise typer.BadParameter("--header needs --set.")
    headers = pairs("--header", header)
    if set_ is not None or own:
        found = client.request_json("PUT", f"{_PATH}/source", json={"url": set_, "headers": headers})
    else:
        found = client.get(f"{_PATH}/source")
    sent = f", with {', '.join(found['header_names'])}" if found["header_names"] else ""
    where = found["url"] or "the sandbox's own feed"
    return Output(found, f"Transactions are read from {where}{sent}.")


@app.shows("replay", help="The exit code is 1 if some still cannot be parsed.")
def _replayed(found: dict[str, Any]) -> Output:
    failure = refused(f"{found['remaining']} rows still cannot be parsed.") if found["remaining"] else None
    return Output(found, f"{found['replayed']} rows were parsed.", failure)


@app.command("feed")
@with_client
def feed(
    client: Client,
    start_date: Annotated[str | None, typer.Option("--start-date", help="Only rows from this date on.")] = None,
    end_date: Annotated[str | None, typer.Option("--end-date", help="Only rows up to and including this date.")] = None,
    page: Annotated[int, typer.Option("--page", min=1, help="The page number.")] = 1,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Rows per page.")] = 20,
) -> Output:
    """Show a page of the sandbox's own vendor feed, which allows 5 calls a minute."""
    params = {"startDate": start_date, "endDate": end_date, "page": page, "limit": limit}
    found = client.get("/vendor/v1/transactions", **params)
    shown = as_table({"data": found["items"]}, "id", "userId", "createdAt", "type", "amount")
    meta = found["meta"]
    return Output(found, f"{shown.text}\nPage {meta['currentPage']} of {meta['totalPages']}.")
