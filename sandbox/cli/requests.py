"""`psp requests`: list and show API calls from the journal."""

import json
from typing import Annotated

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_table, with_client
from sandbox.cli.options import OnlyMethod, Paging, identifier

app = App("The journal of API calls.")
_PATH = "/sandbox/v1/requests"


@app.command("list")
@with_client
def list_(
    client: Client,
    paging: Paging,
    method: OnlyMethod = None,
    path: Annotated[str | None, typer.Option("--path", help="Only calls to this path; * matches anything.")] = None,
    status: Annotated[
        int | None, typer.Option("--status", min=100, max=599, help="Only calls with this response status.")
    ] = None,
    request_id: Annotated[str | None, typer.Option("--request-id", help="Only calls with this X-Request-Id.")] = None,
    fault_id: Annotated[str | None, typer.Option("--fault", help="Only calls that this fault hit.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Only calls with this text in their path or bodies.")] = None,
) -> Output:
    """List recent calls, newest first."""
    query = {"method": method, "path": path, "status": status, "request_id": request_id, "fault_id": fault_id, "q": text}
    page = client.get(_PATH, **query, **paging)
    return as_table(page, "id", "at", "method", "path", "status", "duration_ms", "request_id")


@app.command("get")
@with_client
def get(client: Client, entry_id: Annotated[str, identifier("The entry's id in the journal.")]) -> Output:
    """Show a call with its headers and bodies; secrets are redacted."""
    found = client.get(f"{_PATH}/{entry_id}")
    return Output(found, json.dumps(found, indent=2))
