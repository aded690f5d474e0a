"""`psp sales`: record, show, reconcile and pay sales."""

from typing import Annotated, Literal

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_table, with_client
from sandbox.cli.failures import refused
from sandbox.cli.options import CreatedPaging, identifier
from sandbox.cli.references import USER
from sandbox.domain.choices import SaleStatus

app = App("Sales, and their advance and final payments.")


@app.command("create")
@with_client
def create(
    client: Client,
    user_id: Annotated[str, typer.Argument(help="The id or external_id of the user who made the sale."), USER],
    brand: Annotated[str, typer.Argument(help="The brand that was sold.")],
    earning: Annotated[str, typer.Argument(help="The amount that the user earns, such as 40.00.")],
) -> Output:
    """Record a sale."""
    sale = client.post("/api/v1/sales", {"user_id": user_id, "brand": brand, "earning": earning})
    return Output(sale, f"{sale['id']}  {sale['earning']} for {sale['brand']}  {sale['status']}")


@app.command("get")
@with_client
def get(client: Client, sale_id: Annotated[str, identifier("The sale's id.")]) -> Output:
    """Show a sale and its payments."""
    sale = client.get(f"/api/v1/sales/{sale_id}")
    lines = [f"{sale['id']}  {sale['earning']} for {sale['brand']}  {sale['status']}  {sale['attempts']} attempts"]
    lines += [f"  {payment['created_at']}  {payment['kind']:<8}{payment['amount']:>16}" for payment in sale["payments"]]
    if sale["last_error"]:
        lines.append(f"  {sale['last_error']}")
    return Output(sale, "\n".join(lines))


@app.command("list")
@with_client
def list_(
    client: Client,
    paging: CreatedPaging,
    status: Annotated[SaleStatus | None, typer.Option("--status", help="Only sales in this state.")] = None,
    user_id: Annotated[
        str | None, typer.Option("--user-id", help="Only sales of the user with this id or external_id."), USER
    ] = None,
) -> Output:
    """List sales, newest first."""
    page = client.get(
        "/api/v1/sales",
        status=status,
        user_id=user_id,
        **paging,
    )
    return as_table(
        page,
        "id",
        "created_at",
        "user_id",
        "brand",
        "earning",
        "status",
        "advance_amount",
        "final_amount",
        "attempts",
        "last_error",
    )


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
