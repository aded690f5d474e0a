"""`psp deliveries`: list, show and explain webhook deliveries and their attempts, and resend one."""

from typing import Annotated, Any

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_table, with_client
from sandbox.cli.options import CreatedPaging, identifier
from sandbox.domain.choices import DeliveryStatus

app = App("Webhook deliveries and their attempts.")
_PATH = "/api/v1/webhook-deliveries"
_Id = Annotated[str, identifier("The delivery's id.")]


@app.command("list")
@with_client
def list_(
    client: Client,
    paging: CreatedPaging,
    endpoint_id: Annotated[str | None, typer.Option("--endpoint", help="Only deliveries to this endpoint.")] = None,
    event_id: Annotated[str | None, typer.Option("--event", help="Only deliveries of this event.")] = None,
    status: Annotated[DeliveryStatus | None, typer.Option("--status", help="Only deliveries in this state.")] = None,
) -> Output:
    """List deliveries, newest first."""
    page = client.get(
        _PATH,
        endpoint_id=endpoint_id,
        event_id=event_id,
        status=status,
        **paging,
    )
    return as_table(page, "id", "created_at", "event_type", "endpoint_id", "status", "attempt_count", "next_attempt_at")


@app.command("get")
@with_client
def get(client: Client, delivery_id: _Id) -> Output:
    """Show a delivery and its attempts."""
    delivery = client.get(f"{_PATH}/{delivery_id}")
    lines = [_line(delivery)]
    for attempt in delivery["attempts"]:
        fault = f"  fault {attempt['fault_kind']}" if attempt["fault_kind"] else ""
        result = " ".join(str(part) for part in (attempt["status"], attempt["error_class"], attempt["error"]) if part)
        phases = [
            f"{name} {attempt['timings'][f'{name}_ms']:g}"
            for name in ("dns", "connect", "tls", "first_byte")
            if attempt["timings"][f"{name}_ms"] is not None
        ]
        times = f"{attempt['duration_ms']} ms" + (f" ({', '.join(phases)})" if phases else "")
        lines.append(f"  {attempt['attempt']:>2}  {attempt['at']}  {result}  {times}{fault}")
    return Output(delivery, "\n".join(lines))


@app.command("explain")
@with_client
def explain(client: Client, delivery_id: _Id) -> Output:
    """Explain a delivery: what caused it, what each attempt did, and why the next one is due when it is."""
    explanation = client.get(f"{_PATH}/{delivery_id}/explain")
    return Output(explanation, "\n".join(explanation["summary"]))


@app.command("resend")
@with_client
def resend(client: Client, delivery_id: _Id) -> Output:
    """Resend a webhook now. If that fails, its retry schedule starts over."""
    delivery = client.post(f"{_PATH}/{delivery_id}/resend")
    return Output(delivery, _line(delivery))


def _line(delivery: dict[str, Any]) -> str:
    return f"{delivery['id']}  {delivery['event_type']} to endpoint {delivery['endpoint_id']}  {delivery['status']}"
