"""`psp listen`: have webhooks delivered to a URL for as long as the command runs, and print each as it happens."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import httpx
import typer

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, Client, ReadyFile, Url, connect, fail, show


def listen(
    forward_to: Annotated[str, typer.Option("--forward-to", help="Where webhooks are delivered to.")],
    events: Annotated[str, typer.Option("--events", help="Only these types, with commas: payout.failed,payout.*")] = "*",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after so many deliveries.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a webhook endpoint for URL, print its secret and each delivery, and delete it again at Ctrl-C.

    With --json each line is one JSON object, the first of them the endpoint with its secret.

    Exit code 0: it was ended; 1: refused, or the sandbox went away; 2: wrong usage.
    """
    client = connect(url, api_key, ready_file)
    body = {"url": forward_to, "event_types": events.split(","), "description": "psp listen"}
    endpoint = client.post("/api/v1/webhook-endpoints", body)
    types: dict[str, str] = {}
    seen = 0
    try:
        with _ends_on_sigterm(), client.stream("/sandbox/v1/stream") as lines:
            for kind, data in _messages(lines):
                if kind == "":
                    # Only now is nothing missed that happens once the reader knows of the endpoint.
                    text = f"Delivering to {forward_to}, signed with {endpoint['secret']}. Ctrl-C ends it."
                    show(endpoint, as_json=as_json, text=text)
                elif "event_id" in data and "delivery_id" not in data:
                    types[data["event_id"]] = kind
                elif kind == "webhook.attempted" and data["endpoint_id"] == endpoint["id"]:
                    event_type = types.get(data["event_id"]) or _type_of(client, data["event_id"])
                    answer = data["status"] or data["error"]
                    text = f"{data['at']}  {event_type:<20} {data['event_id']}  {answer}  {data['duration_ms']} ms"
                    show({**data, "event_type": event_type}, as_json=as_json, text=text)
                    seen += 1
                    if seen == limit:
                        return
        fail("The stream of the sandbox has ended.")
    except KeyboardInterrupt:
        pass
    except httpx.TransportError as error:
        fail(f"The stream of the sandbox broke off: {error or type(error).__name__}.")
    finally:
        # A reset of the sandbox, or a person, may have been quicker.
        client.send("DELETE", f"/api/v1/webhook-endpoints/{endpoint['id']}")


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """Python would end at once on SIGTERM, and leave the endpoint."""

    def end(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _messages(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(type, members) of each event; the type is empty for the comment that the stream begins with."""
    kind = ""
    for line in lines:
        if line == ": listening":
            yield "", {}
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            yield kind, json.loads(line[6:])


def _type_of(client: Client, event_id: str) -> str:
    answer = client.send("GET", f"/api/v1/events/{event_id}")
    return str(answer.json()["type"]) if answer.is_success else "?"
