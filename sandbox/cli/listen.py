"""`psp listen`: deliver webhooks to a URL while the command runs, and print each delivery."""

from typing import Annotated, get_args

import typer

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, Client, ReadyFile, Url, connect, show
from sandbox.cli.events import STREAM, interrupt_on_sigterm
from sandbox.cli.failures import unreachable
from sandbox.cli.options import completion
from sandbox.cli.stream import messages
from sandbox.domain.choices import EventType


def listen(
    forward_to: Annotated[str, typer.Option("--forward-to", help="The URL to deliver webhooks to.")],
    events: Annotated[
        str,
        typer.Option(
            "--events",
            help="Only these types, comma-separated, such as payout.failed,payout.returned, or payout.*.",
            autocompletion=completion(("*", "payout.*", *get_args(EventType))),
        ),
    ] = "*",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after this many deliveries.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Create a webhook endpoint, print its secret and each delivery, and delete the endpoint on Ctrl-C.

    With --json, each line is one JSON object; the first is the endpoint with its secret.
    """
    client = connect(url, api_key, ready_file)
    body = {"url": forward_to, "event_types": events.split(","), "description": "psp listen"}
    endpoint = client.post("/api/v1/webhook-endpoints", body)
    types: dict[str, str] = {}
    deliveries = 0
    try:
        with interrupt_on_sigterm(), client.stream(STREAM) as lines:
            for kind, data in messages(lines):
                if kind == "":
                    # Print the endpoint only now, because from now on the stream shows all deliveries to it.
                    text = f"Delivering to {forward_to}, signed with {endpoint['secret']}. Press Ctrl-C to stop."
                    show(endpoint, as_json=as_json, text=text)
                elif "event_id" in data and "delivery_id" not in data:
                    types[data["event_id"]] = kind
                elif kind == "webhook.attempted" and data["endpoint_id"] == endpoint["id"]:
                    event_type = types.get(data["event_id"]) or _type_of(client, data["event_id"])
                    result = data["status"] or data["error"]
                    text = f"{data['at']}  {event_type:<20} {data['event_id']}  {result}  {data['duration_ms']} ms"
                    show({**data, "event_type": event_type}, as_json=as_json, text=text)
                    deliveries += 1
                    if deliveries == limit:
                        return
        raise unreachable("The stream has ended.")
    except KeyboardInterrupt:
        pass
    finally:
        # Ignore the response: the endpoint may already have been deleted, for example by a reset.
        client.send("DELETE", f"/api/v1/webhook-endpoints/{endpoint['id']}")


def _type_of(client: Client, event_id: str) -> str:
    response = client.send("GET", f"/api/v1/events/{event_id}")
    return str(response.json()["type"]) if response.is_success else "?"
