"""`psp sales`: record, show, reconcile and pay sales."""

from typing import Annotated, Any, Literal

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.failures import refused

app = App("Sales, and their advance and final payments.")


@app.shows("create")
def _line(sale: dict[str, Any]) -> str:
    return f"{sale['id']}  {sale['earning']} for {sale['brand']}  {sale['status']}"


@app.shows("get")
def _with_payments(sale: dict[str, Any]) -> str:
    lines = [f"{_line(sale)}  {sale['attempts']} attempts"]
    lines += [f"  {payment['created_at']}  {payment['kind']:<8}{payment['amount']:>16}" for payment in sale["payments"]]
    if sale["last_error"]:
        lines.append(f"  {sale['last_error']}")
    return "\n".join(lines)


@app.command("reconcile")
@with_client
def reconcile(
    client: Client,
    approve: Annotated[
        list[str] | None, typer.Option("--approve", help="The id of a sale to approve. Can be repeated.")
    ] = None,
    decline: Annotated[
        list[str] | None, typer.Option("--decline", help="The id of a sale to decline. Can be repeated.")
    ] = None,
) -> Output:
    """Approve and decline sales: all of them, or none if one is refused."""
    verdicts = [{"sale_id": sale_id, "status": "APPROVED"} for sale_id in approve or []]
    verdicts += [{"sale_id": sale_id, "status": "DECLINED"} for sale_id in decline or []]
    if not verdicts:
        raise typer.BadParameter("Give at least one sale with --approve or --decline.")
    found = client.post("/api/v1/reconcile", verdicts)
    return Output(found, f"{found['reconciled']} sales were reconciled.")


@app.command("run")
@with_client
def run(
    client: Client,
    which: Annotated[
        Literal["advance", "final"], typer.Argument(help="Pay advances, or make the final payments of reconciled sales.")
    ],
) -> Output:
    """Pay sales that are due, each exactly once. The exit code is 1 if a payment fails."""
    found = client.post(f"/api/v1/payouts/{which}/run")
    text = f"{found['paid']} sales were paid, {found['total_amount']} in total."
    failure = refused(f"{found['failed']} payments failed; `psp sales list` shows why.") if found["failed"] else None
    return Output(found, text, failure)
