"""`psp faults`: inject faults into API calls and webhooks."""

import json
from typing import Annotated, Any, get_args

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.options import OnlyMethod, completion, given, pairs
from sandbox.domain.enumerations import EventType, FaultKind, FaultTarget

app = App("Faults injected into API calls and webhooks.")
_PATH = "/sandbox/v1/faults"


@app.command("add")
@with_client
def add(
    client: Client,
    target: Annotated[FaultTarget, typer.Argument(help="Where to inject the fault.")],
    kind: Annotated[FaultKind, typer.Argument(help="The kind of fault.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A parameter of the kind, such as milliseconds=500 or status=503. Can be repeated.",
        ),
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option("--match", metavar="KEY=VALUE", help="A condition; the options below are shortcuts. Can be repeated."),
    ] = None,
    method: OnlyMethod = None,
    path: Annotated[str | None, typer.Option("--path", help="Only calls to this path; * matches anything.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Only payouts whose reference contains this.")] = None,
    event_type: Annotated[
        str | None,
        typer.Option(
            "--event-type",
            help="Only webhooks of these events, such as payout.failed or payout.*.",
            autocompletion=completion(("payout.*", *get_args(EventType))),
        ),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only calls that are made with the API key of this id.")] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="Only webhooks to this endpoint.")] = None,
    probability: Annotated[
        float, typer.Option("--probability", min=0, max=1, help="The probability of a hit, from 0 to 1.")
    ] = 1.0,
    count: Annotated[int | None, typer.Option("--count", min=1, max=1_000_000, help="Stop after this many hits.")] = None,
    skip: Annotated[int, typer.Option("--skip", min=0, max=1_000_000, help="Spare this many matches first.")] = 0,
    ttl: Annotated[float | None, typer.Option("--ttl", min=0, help="Stop after this many seconds.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The same seed hits the same calls again.")] = None,
) -> Output:
    """Add a fault to the API or to webhooks."""
    types = None if event_type is None else event_type.lower()
    named = given(method=method, path=path, reference=reference, api_key_id=key, event_type=types, endpoint_id=endpoint)
    body = {
        "target": target,
        "kind": kind,
        "probability": probability,
        **given(count=count, skip=skip or None, ttl_seconds=ttl, seed=seed),
        "match": pairs("--match", match) | named,
        **{name: _value(text) for name, text in pairs("--set", set_).items()},
    }
    fault = client.post(_PATH, body)
    return Output(fault, _line(fault))


@app.shows("list")
def _page(page: dict[str, Any]) -> str:
    lines = [*map(_line, page["data"])] or ["No faults."]
    if page["has_more"]:
        lines.append(f"More results: --cursor {page['next_cursor']}")
    return "\n".join(lines)


def _value(text: str) -> Any:
    """Parse JSON, such as a number; return anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _line(fault: dict[str, Any]) -> str:
    remaining = "" if fault["remaining"] is None else f", {fault['remaining']} remaining"
    hits = "1 hit" if fault["hits"] == 1 else f"{fault['hits']} hits"
    return f"{fault['id']}  {fault['target']} {fault['kind']}: {hits}{remaining}"
