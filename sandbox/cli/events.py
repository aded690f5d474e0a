"""`psp events`: list, show, resend and watch events."""

import json
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated, Any, get_args

import typer

from sandbox.cli.app import App
from sandbox.cli.client import (
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Client,
    Output,
    ReadyFile,
    Url,
    connect,
    show,
    with_client,
)
from sandbox.cli.failures import not_met, refused, unreachable
from sandbox.cli.options import completion, event_types, identifier
from sandbox.domain.enumerations import EventType

app = App("Events of the merchant whose key is used.")
_Id = Annotated[str, identifier("The event's id.")]
STREAM = "/sandbox/v1/stream"


@app.command("resend")
@with_client
def resend(client: Client, event_id: _Id) -> Output:
    """Resend an event now to every endpoint that received it and still exists."""
    found = client.get(f"/api/v1/events/{event_id}")["deliveries"]
    existing = {endpoint["id"] for endpoint in client.get("/api/v1/webhook-endpoints", limit=100)["data"]}
    deliveries = [delivery for delivery in found if delivery["endpoint_id"] in existing]
    if not deliveries:
        reason = f"No endpoint of event {event_id} exists any more." if found else f"Event {event_id} had no endpoint."
        raise refused(reason)
    sent = [client.post(f"/api/v1/webhook-deliveries/{delivery['id']}/resend") for delivery in deliveries]
    lines = [f"{delivery['id']}  to endpoint {delivery['endpoint_id']}  {delivery['status']}" for delivery in sent]
    return Output({"deliveries": sent}, "\n".join(lines))


@app.shows("get")
def _with_deliveries(found: dict[str, Any]) -> str:
    lines = [line(found)]
    lines += [f"  {item['id']}  to endpoint {item['endpoint_id']}  {item['status']}" for item in found["deliveries"]]
    return "\n".join(lines)


@app.command("watch")
def watch(
    types: Annotated[
        str,
        typer.Option(
            "--types",
            help="Only these types, comma-separated: event types, payout.*, webhook.attempted, request.",
            autocompletion=completion(("*", "payout.*", "webhook.attempted", "request", *get_args(EventType))),
        ),
    ] = "*",
    limit: Annotated[int | None, typer.Option("--limit", min=1, max=1_000_000, help="Stop after this many events.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, max=86_400, help="Stop after this many seconds.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Print events, webhook attempts and API calls as they happen, until Ctrl-C.

    With --json, each line is one JSON object; the first is {"listening": true}. With --limit and --timeout, the exit code
    is 4 if fewer events than the limit arrive.
    """
    client = connect(url, api_key, ready_file)
    received = 0
    filters = {"types": ",".join(event_types(types)), "limit": limit, "timeout": timeout}
    with suppress(KeyboardInterrupt), interrupt_on_sigterm(), client.stream(STREAM, **filters) as found:
        for kind, data in _messages(found):
            if kind == "":
                show({"listening": True}, as_json=as_json, text="Listening. Press Ctrl-C to stop.")
                continue
            received += 1
            subject = data.get("payout_id") or data.get("delivery_id") or f"{data.get('method', '')} {data.get('path', '')}"
            show({"event": kind, **data}, as_json=as_json, text=f"{data.get('at', '')}  {kind:<20} {subject}")
        if limit is not None and timeout is not None and received < limit:
            raise not_met(f"Only {received} of {limit} events arrived within {timeout:g} s.")
        if timeout is None and received != limit:
            raise unreachable("The stream has ended.")


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM. Otherwise Python would end immediately, without cleaning up."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def line(event: dict[str, Any]) -> str:
    """Return an event in one line."""
    return f"{event['id']}  {event['created_at']}  {event['type']:<20} {event['payout_id'] or ''}"


def _messages(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the type and fields of each server-sent event. The type is empty for the comment that starts the stream."""
    kind = ""
    for line in lines:
        if line == ": listening":
            yield "", {}
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            yield kind, json.loads(line[6:])
