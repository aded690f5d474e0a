"""`psp endpoints`: create, change and delete webhook endpoints, and rotate their secrets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_fields, with_client
from sandbox.cli.dates import moment
from sandbox.cli.files import read_json
from sandbox.cli.options import completion, event_types, given, identifier
from sandbox.domain.enumerations import (
    EVENT_PATTERNS,
    EVENT_TYPES,
    RecoveryScope,
)

app = App("Webhook endpoints.")
_PATH = "/api/v1/webhook-endpoints"
_RECOVERY_SECONDS = 600
"""A million events take minutes."""
_Id = Annotated[str, identifier("The endpoint's id.")]
_Events = Annotated[
    list[str] | None,
    typer.Option(
        "--events",
        metavar="EVENT",
        help="Event types to send, comma-separated, such as payout.failed, or patterns such as payout.* and *.",
        autocompletion=completion(("*", *EVENT_PATTERNS, *EVENT_TYPES)),
    ),
]
CustomSigningOption = Annotated[
    Path | None,
    typer.Option("--custom-signing", help="For --signing custom: a JSON file with header, algorithm, encoding and template."),
]


@app.command("enable")
@with_client
def enable(client: Client, endpoint_id: _Id) -> Output:
    """Enable an endpoint. Its due deliveries are sent."""
    return as_fields(client.write("PATCH", f"{_PATH}/{endpoint_id}", {"status": "ENABLED"}))


@app.command("disable")
@with_client
def disable(client: Client, endpoint_id: _Id) -> Output:
    """Disable an endpoint. Its events are kept and can be resent."""
    return as_fields(client.write("PATCH", f"{_PATH}/{endpoint_id}", {"status": "DISABLED"}))


@app.command("test")
@with_client
def test(
    client: Client,
    endpoint_id: _Id,
    event_type: Annotated[
        str, typer.Argument(help="The type of event.", autocompletion=completion(EVENT_TYPES))
    ] = "payout.succeeded",  # noqa: PT028 (a command, not a test)
) -> Output:
    """Send an endpoint a sample event. Its payout does not exist, and no money moves."""
    return as_fields(client.post(f"{_PATH}/{endpoint_id}/test", {"event_type": event_type.lower()}))


@app.shows("signing-example")
def _steps(example: dict[str, Any]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(example["steps"], 1))


def custom_settings(path: Path | None) -> Any:
    """Return the settings in the file of CustomSigningOption, or None. Raises BadParameter."""
    return None if path is None else read_json(path)


@app.command("recover")
@with_client
def recover(
    client: Client,
    endpoint_id: _Id,
    since: Annotated[str, typer.Option("--since", help="Only events at or after this time or date.", callback=moment)],
    until: Annotated[str | None, typer.Option("--until", help="Only events before this time or date.", callback=moment)] = None,
    which: Annotated[
        RecoveryScope,
        typer.Option("--which", help="Failed and kept events, or every event, also those that it has received."),
    ] = "failed",
    events: _Events = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
) -> Output:
    """Send an endpoint's events again."""
    body = given(since=since, until=until, which=which, event_types=event_types(events) or None, dry_run=dry_run)
    with client.waiting("Recovering events"):
        found = client.post(f"{_PATH}/{endpoint_id}/recover", body, timeout=_RECOVERY_SECONDS)
    lines = [f"{count:>9}  {event_type}" for event_type, count in found["by_type"].items()]
    return Output(found, "\n".join([f"{found['count']} events {'would be' if dry_run else 'are'} sent again.", *lines]))
