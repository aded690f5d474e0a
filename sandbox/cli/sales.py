"""`psp sales`: sales, their reconciliation, and the two runs that pay them."""

from typing import Annotated, Literal

import typer

from sandbox.cli.client import Client, Cursor, Limit, Shown, listed, with_client

app = typer.Typer(help="Sales, and what is paid for them in advance and in the end.", no_args_is_help=True)


@app.command("create")
@with_client
def create(
    client: Client,
    user_id: Annotated[str, typer.Argument(help="The id of the user who sold.")],
    brand: Annotated[str, typer.Argument(help="Whose goods.")],
    earning: Annotated[str, typer.Argument(help="What the user earns by it, such as 40.00.")],
) -> Shown:
    """Record a sale. Exit code 0: recorded; 1: refused; 2: wrong usage."""
    sale = client.post("/api/v1/sales", {"user_id": user_id, "brand": brand, "earning": earning})
    return Shown(sale, f"{sale['id']}  {sale['earning']} for {sale['brand']}  {sale['status']}")


@app.command("get")
@with_client
def get(client: Client, sale_id: Annotated[str, typer.Argument(help="The sale's id.")]) -> Shown:
    """Show a sale and what was paid for it. Exit code 0: shown; 1: not found; 2: wrong usage."""
    sale = client.get(f"/api/v1/sales/{sale_id}")
    lines = [f"{sale['id']}  {sale['earning']} for {sale['brand']}  {sale['status']}  {sale['attempts']} attempts"]
    lines += [f"  {payment['created_at']}  {payment['kind']:<8}{payment['amount']:>16}" for payment in sale["payments"]]
    if sale["last_error"]:
        lines.append(f"  {sale['last_error']}")
    return Shown(sale, "\n".join(lines))


@app.command("list")
@with_client
def list_(
    client: Client,
    status: Annotated[
        Literal["PENDING", "APPROVED", "DECLINED"] | None, typer.Option("--status", help="Only sales in this state.")
    ] = None,
    user_id: Annotated[str | None, typer.Option("--user-id", help="Only sales of this user.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Shown:
    """List sales, newest first. Exit code 0: listed; 1: refused; 2: wrong usage."""
    page = client.get("/api/v1/sales", status=status, user_id=user_id, limit=limit, cursor=cursor)
    return listed(
        page, "id", "user_id", "brand", "earning", "status", "advance_amount", "final_amount", "attempts", "last_error"
    )


@app.command("reconcile")
@with_client
def reconcile(
    client: Client,
    approve: Annotated[list[str] | None, typer.Option("--approve", help="The id of a sale to approve; repeat it.")] = None,
    decline: Annotated[list[str] | None, typer.Option("--decline", help="The id of a sale to decline; repeat it.")] = None,
) -> Shown:
    """Approve and decline sales, all or none. Exit code 0: done; 1: refused, and nothing was; 2: wrong usage."""
    verdicts = [{"sale_id": sale_id, "status": "APPROVED"} for sale_id in approve or []]
    verdicts += [{"sale_id": sale_id, "status": "DECLINED"} for sale_id in decline or []]
    if not verdicts:
        raise typer.BadParameter("Give sales with --approve and --decline.")
    found = client.post("/api/v1/reconcile", verdicts)
    return Shown(found, f"{found['reconciled']} sales were reconciled.")


@app.command("run")
@with_client
def run(
    client: Client,
    which: Annotated[Literal["advance", "final"], typer.Argument(help="Pay the advances, or settle what is reconciled.")],
) -> Shown:
    """Pay for sales, each once, however often it is run. Exit code 0: all were paid; 1: some failed; 2: wrong usage."""
    found = client.post(f"/api/v1/payouts/{which}/run")
    text = f"{found['paid']} sales were paid, {found['total_amount']} in all; {found['failed']} failed."
    return Shown(found, text, 1 if found["failed"] else 0)
