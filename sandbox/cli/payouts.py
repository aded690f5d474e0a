"""`psp payouts`: create, read, list, decide and simulate payouts."""

import uuid
from typing import Annotated, Any, Literal

import typer

from sandbox.cli.client import Client, Cursor, Limit, Shown, listed, with_client

app = typer.Typer(help="Payouts of the merchant whose key is used.", no_args_is_help=True)
_Id = Annotated[str, typer.Argument(help="The payout's id.")]


@app.command("create")
@with_client
def create(
    client: Client,
    amount: Annotated[str, typer.Argument(help="The amount, such as 1500.00.")],
    account: Annotated[str, typer.Argument(help="The account's number; its last four digits choose what happens.")],
    bank: Annotated[str | None, typer.Option("--bank", help="The bank's code.")] = None,
    wallet: Annotated[str | None, typer.Option("--wallet", help="The wallet's code, for a payout to a wallet.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Your own reference; made up unless given.")] = None,
    title: Annotated[str | None, typer.Option("--title", help="The account's title.")] = None,
    requires_approval: Annotated[bool, typer.Option("--requires-approval", help="Let it wait for an approval.")] = False,
    scenario: Annotated[str | None, typer.Option("--scenario", help="The scenario to follow, by its name.")] = None,
    key: Annotated[str | None, typer.Option("--idempotency-key", help="Made up unless given.")] = None,
) -> Shown:
    """Create a payout; to HBL unless --bank or --wallet says otherwise. Exit code 0: created; 1: refused; 2: wrong usage."""
    body: dict[str, Any] = {
        "merchant_reference": reference or f"cli-{uuid.uuid4()}",
        "amount": amount,
        "dest_type": "WALLET" if wallet else "BANK",
        "account_number": account,
        "requires_approval": requires_approval,
        **({"wallet_code": wallet} if wallet else {"bank_code": bank or "HBL"}),
        **({"account_title": title} if title else {}),
    }
    payout = client.post("/api/v1/payouts", body, key=key, headers={"X-Sandbox-Scenario": scenario} if scenario else None)
    return Shown(payout, _line(payout))


@app.command("get")
@with_client
def get(
    client: Client,
    payout_id: _Id,
    wait_for: Annotated[
        str | None, typer.Option("--wait-for", help="Wait until it is in one of these: SUCCESS,FAILED.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0, max=30, help="Seconds to wait.")] = 10,
) -> Shown:
    """Show a payout and its timeline. Exit code 0: found; 1: not, or with --wait-for not in one of the states in time."""
    waiting = {"wait_for": wait_for, "timeout": timeout} if wait_for else {}
    payout = client.get(f"/api/v1/payouts/{payout_id}", **waiting)
    timeline = client.get(f"/api/v1/payouts/{payout_id}/timeline")["data"]
    lines = [_line(payout), *(f"  {entry['at']}  {entry['to']:<10} {entry['cause']}" for entry in timeline)]
    missed = wait_for is not None and payout["status"] not in wait_for.split(",")
    return Shown({**payout, "timeline": timeline}, "\n".join(lines), 1 if missed else 0)


@app.command("list")
@with_client
def list_(
    client: Client,
    status: Annotated[str | None, typer.Option("--status", help="Only payouts in one of these: SUCCESS,RETURNED.")] = None,
    metadata: Annotated[list[str] | None, typer.Option("--metadata", help="Only with KEY=VALUE in it; repeatable.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Only payouts of the user with this id.")] = None,
    dest_type: Annotated[Literal["BANK", "WALLET"] | None, typer.Option("--dest-type", help="Only to these.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Only the payout with this reference.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Shown:
    """List payouts, newest first. Exit code 0: listed; 1: refused; 2: wrong usage."""
    pairs = [pair.partition("=") for pair in metadata or ()]
    if not all(separator for _, separator, _ in pairs):
        raise typer.BadParameter("Give --metadata as KEY=VALUE.")
    filters = {"status": status, "dest_type": dest_type, "merchant_reference": reference, "user_id": user}
    filters |= {f"metadata[{name}]": value for name, _, value in pairs}
    page = client.get("/api/v1/payouts", **filters, limit=limit, cursor=cursor)
    return listed(page, "id", "merchant_reference", "amount", "account_number", "status", "failure_code")


@app.command("requests")
@with_client
def requests(client: Client, limit: Limit = 20, cursor: Cursor = None) -> Shown:
    """List users whose requests wait to be approved. Exit code 0: listed; 1: refused; 2: wrong usage."""
    return listed(client.get("/api/v1/payouts/requests", limit=limit, cursor=cursor), "user_id", "total_requested")


@app.command("approve")
@with_client
def approve(client: Client, payout_id: _Id) -> Shown:
    """Approve a payout that waits for it. Exit code 0: approved; 1: refused; 2: wrong usage."""
    return _acted(client, "PATCH", payout_id, "approve")


@app.command("reject")
@with_client
def reject(client: Client, payout_id: _Id) -> Shown:
    """Reject a payout that waits for approval. Exit code 0: rejected; 1: refused; 2: wrong usage."""
    return _acted(client, "PATCH", payout_id, "reject")


@app.command("cancel")
@with_client
def cancel(client: Client, payout_id: _Id) -> Shown:
    """Cancel a payout that is not under way. Exit code 0: cancelled; 1: refused; 2: wrong usage."""
    return _acted(client, "POST", payout_id, "cancel")


@app.command("reinitiate")
@with_client
def reinitiate(client: Client, payout_id: _Id) -> Shown:
    """Begin a failed payout anew. Exit code 0: it is pending; 1: refused; 2: wrong usage."""
    return _acted(client, "POST", payout_id, "reinitiate")


@app.command("simulate")
@with_client
def simulate(
    client: Client,
    payout_id: _Id,
    status: Annotated[str, typer.Argument(help="Where to take it: SUCCESS, FAILED, RETURNED, ON_HOLD, …")],
    failure_code: Annotated[str | None, typer.Option("--failure-code", help="Why it failed.")] = None,
) -> Shown:
    """Take a payout to another state by hand. Exit code 0: done; 1: not legal, or refused; 2: wrong usage."""
    body = {"status": status.upper(), **({"failure_code": failure_code} if failure_code else {})}
    payout = client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", body)
    return Shown(payout, _line(payout))


def _acted(client: Client, method: str, payout_id: str, action: str) -> Shown:
    payout = client.write(method, f"/api/v1/payouts/{payout_id}/{action}")
    return Shown(payout, _line(payout))


def _line(payout: dict[str, Any]) -> str:
    failure = f" ({payout['failure_code']})" if payout["failure_code"] else ""
    return f"{payout['id']}  {payout['amount']} {payout['currency']} to {payout['account_number']}  {payout['status']}{failure}"
