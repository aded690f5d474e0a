"""`psp faults`: let calls and webhooks go wrong, and right again."""

import json
from typing import Annotated, Any, Literal

import typer

from sandbox.cli.client import Client, Shown, with_client

app = typer.Typer(help="Faults of the API and of webhooks.", no_args_is_help=True)
_PATH = "/sandbox/v1/faults"


@app.command("list")
@with_client
def list_(client: Client) -> Shown:
    """List the merchant's faults with their hits. Exit code 0: listed; 1: refused; 2: wrong usage."""
    page = client.get(_PATH)
    return Shown(page, "\n".join(map(_line, page["data"])) or "There are no faults.")


@app.command("add")
@with_client
def add(
    client: Client,
    target: Annotated[Literal["api", "webhooks"], typer.Argument(help="What goes wrong.")],
    kind: Annotated[str, typer.Argument(help="How: latency, error, rate_limit, drop, duplicate, delay, … (see the README).")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A member of the fault, such as milliseconds=500 or status=503.")
    ] = None,
    match: Annotated[
        list[str] | None, typer.Option("--match", help="What is meant, such as path=/api/v1/payouts or event_type=payout.*.")
    ] = None,
    probability: Annotated[float, typer.Option("--probability", min=0, max=1, help="How often it hits.")] = 1.0,
    count: Annotated[int | None, typer.Option("--count", min=1, help="After so many hits it is spent.")] = None,
) -> Shown:
    """Make a fault. Exit code 0: made; 1: refused; 2: wrong usage."""
    body = {
        "target": target,
        "kind": kind,
        "probability": probability,
        **({"count": count} if count is not None else {}),
        **({"match": _members(match)} if match else {}),
        **_members(set_),
    }
    fault = client.post(_PATH, body)
    return Shown(fault, _line(fault))


@app.command("delete")
@with_client
def delete(
    client: Client,
    fault_id: Annotated[str, typer.Argument(help="The fault's id.")],
) -> Shown:
    """Take a fault away. Exit code 0: gone; 1: not found; 2: wrong usage."""
    client.ask("DELETE", f"{_PATH}/{fault_id}")
    return Shown({"deleted": fault_id}, f"Deleted {fault_id}.")


def _members(pairs: list[str] | None) -> dict[str, Any]:
    """`name=value` pairs as members; a value that is JSON (a number) is that, any other is text."""
    members: dict[str, Any] = {}
    for pair in pairs or []:
        name, found, value = pair.partition("=")
        if not found:
            raise typer.BadParameter(f"{pair} is not name=value")
        try:
            members[name] = json.loads(value)
        except ValueError:
            members[name] = value
    return members


def _line(fault: dict[str, Any]) -> str:
    left = "" if fault["remaining"] is None else f", {fault['remaining']} to come"
    return f"{fault['id']}  {fault['target']} {fault['kind']}: {fault['hits']} hits{left}"
