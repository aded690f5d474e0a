"""`psp payouts`: create, read, list and simulate payouts."""

import uuid
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, ReadyFile, Url, connect, show

app = typer.Typer(help="Payouts of the merchant whose key is used.", no_args_is_help=True)
_Id = Annotated[str, typer.Argument(help="The payout's id.")]


@app.command("create")
def create(
    amount: Annotated[str, typer.Argument(help="The amount, such as 1500.00.")],
    account: Annotated[str, typer.Argument(help="The account's number; its last four digits choose what happens.")],
    bank: Annotated[str | None, typer.Option("--bank", help="The bank's code.")] = None,
    wallet: Annotated[str | None, typer.Option("--wallet", help="The wallet's code, for a payout to a wallet.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Your own reference; made up unless given.")] = None,
    title: Annotated[str | None, typer.Option("--title", help="The account's title.")] = None,
    requires_approval: Annotated[bool, typer.Option("--requires-approval", help="Let it wait for an approval.")] = False,
    scenario: Annotated[str | None, typer.Option("--scenario", help="The scenario to follow, by its name.")] = None,
    key: Annotated[str | None, typer.Option("--idempotency-key", help="Made up unless given.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Create a payout; to HBL unless --bank or --wallet says otherwise. Exit code 0: created; 1: refused; 2: wrong usage."""
    client = connect(url, api_key, ready_file)
    body: dict[str, Any] = {
        "merchant_reference": reference or f"cli-{uuid.uuid4()}",
        "amount": amount,
        "dest_type": "WALLET" if wallet else "BANK",
        "account_number": account,
        "requires_approval": requires_approval,
        **({"wallet_code": wallet} if wallet else {"bank_code": bank or "HBL"}),
        **({"account_title": title} if title else {}),
    }
    headers = {"X-IDEMPOTENCY-KEY": key or str(uuid.uuid4()), **({"X-Sandbox-Scenario": scenario} if scenario else {})}
    payout = client.ask("POST", "/api/v1/payouts", json=body, headers=headers)
    show(payout, as_json=as_json, text=_line(payout))


@app.command("get")
def get(
    payout_id: _Id,
    wait_for: Annotated[
        str | None, typer.Option("--wait-for", help="Wait until it is in one of these: SUCCESS,FAILED.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0, max=30, help="Seconds to wait.")] = 10,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a payout and its timeline. Exit code 0: found; 1: not, or with --wait-for not in one of the states in time."""
    client = connect(url, api_key, ready_file)
    waiting = {"wait_for": wait_for, "timeout": timeout} if wait_for else {}
    payout = client.get(f"/api/v1/payouts/{payout_id}", **waiting)
    timeline = client.get(f"/api/v1/payouts/{payout_id}/timeline")["data"]
    lines = [_line(payout), *(f"  {entry['at']}  {entry['to']:<10} {entry['cause']}" for entry in timeline)]
    show({**payout, "timeline": timeline}, as_json=as_json, text="\n".join(lines))
    if wait_for and payout["status"] not in wait_for.split(","):
        raise typer.Exit(1)


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option("--status", help="Only payouts in this state.")] = None,
    dest_type: Annotated[Literal["BANK", "WALLET"] | None, typer.Option("--dest-type", help="Only to these.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Only the payout with this reference.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="How many at most.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="The next_cursor of the page before.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """List payouts, newest first. Exit code 0: listed; 1: refused; 2: wrong usage."""
    client = connect(url, api_key, ready_file)
    filters = {"status": status, "dest_type": dest_type, "merchant_reference": reference, "limit": limit, "cursor": cursor}
    page = client.get("/api/v1/payouts", **filters)
    if as_json:
        show(page, as_json=True, text="")
        return
    table = Table("id", "reference", "amount", "account", "status", "failure")
    for payout in page["data"]:
        cells = (
            payout[name] or "" for name in ("id", "merchant_reference", "amount", "account_number", "status", "failure_code")
        )
        table.add_row(*cells)
    Console().print(table)
    if page["has_more"]:
        typer.echo(f"There are more: --cursor {page['next_cursor']}")


@app.command("simulate")
def simulate(
    payout_id: _Id,
    status: Annotated[str, typer.Argument(help="Where to take it: SUCCESS, FAILED, RETURNED, ON_HOLD, …")],
    failure_code: Annotated[str | None, typer.Option("--failure-code", help="Why it failed.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Take a payout to another state by hand. Exit code 0: done; 1: not legal, or refused; 2: wrong usage."""
    client = connect(url, api_key, ready_file)
    body = {"status": status.upper(), **({"failure_code": failure_code} if failure_code else {})}
    payout = client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", body)
    show(payout, as_json=as_json, text=_line(payout))


def _line(payout: dict[str, Any]) -> str:
    failure = f" ({payout['failure_code']})" if payout["failure_code"] else ""
    return f"{payout['id']}  {payout['amount']} {payout['currency']} to {payout['account_number']}  {payout['status']}{failure}"
