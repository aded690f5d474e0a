"""`psp endpoints`: create, change and delete webhook endpoints, and rotate their secrets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_fields, as_table, with_client
from sandbox.cli.dates import moment
from sandbox.cli.files import read_json
from sandbox.cli.filters import FilterOptions, filters
from sandbox.cli.options import Paging, completion, event_types, given, identifier
from sandbox.domain.choices import (
    EVENT_PATTERNS,
    EVENT_TYPES,
    EndpointStatus,
    RecoveryScope,
    RetryProfile,
    Signing,
    SigningTime,
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
_Signing = Annotated[Signing | None, typer.Option("--signing", help="How to sign webhooks.")]
CustomSigningOption = Annotated[
    Path | None,
    typer.Option("--custom-signing", help="For --signing custom: a JSON file with header, algorithm, encoding and template."),
]
_SigningTime = Annotated[SigningTime | None, typer.Option("--signing-time", help="The clock that webhook-timestamp uses.")]
_Retries = Annotated[RetryProfile | None, typer.Option("--retry-profile", help="The retry schedule for failed attempts.")]
_Ordered = Annotated[
    bool | None,
    typer.Option("--ordered/--unordered", help="Whether a failing delivery holds back later events of the same payout."),
]
_RateLimit = Annotated[int | None, typer.Option("--rate-limit", min=1, help="Maximum number of attempts per second.")]
_MaxInFlight = Annotated[int | None, typer.Option("--max-in-flight", min=1, help="Maximum number of attempts in progress.")]
_Description = Annotated[str | None, typer.Option("--description", help="A description.")]


@app.command("list")
@with_client
def list_(client: Client, paging: Paging) -> Output:
    """List endpoints, newest first."""
    return as_table(client.get(_PATH, **paging), "id", "url", "event_types", "relayed", "status", "disabled_reason")


@app.command("get")
@with_client
def get(client: Client, endpoint_id: _Id) -> Output:
    """Show an endpoint."""
    return as_fields(client.get(f"{_PATH}/{endpoint_id}"))


@app.command("create")
@with_client
def create(
    client: Client,
    target: Annotated[str, typer.Argument(help="The URL to post webhooks to.")],
    events: _Events = None,
    filter_: FilterOptions = None,
    signing: _Signing = None,
    custom_signing: CustomSigningOption = None,
    signing_time: _SigningTime = None,
    retry_profile: _Retries = None,
    ordered: _Ordered = None,
    rate_limit: _RateLimit = None,
    max_in_flight: _MaxInFlight = None,
    description: _Description = None,
) -> Output:
    """Create an endpoint. Its secret is shown only in this response."""
    body = given(
        url=target, event_types=_types(events), filters=filters(filter_), signing=signing,
        custom_signing=custom_settings(custom_signing), signing_time=signing_time, retry_profile=retry_profile, ordered=ordered,
        rate_limit=rate_limit, max_in_flight=max_in_flight, description=description,
    )  # fmt: skip
    return as_fields(client.post(_PATH, body))


@app.command("update")
@with_client
def update(
    client: Client,
    endpoint_id: _Id,
    target: Annotated[str | None, typer.Option("--target", help="A new URL to post webhooks to.")] = None,
    events: _Events = None,
    filter_: FilterOptions = None,
    signing: _Signing = None,
    custom_signing: CustomSigningOption = None,
    signing_time: _SigningTime = None,
    retry_profile: _Retries = None,
    ordered: _Ordered = None,
    rate_limit: _RateLimit = None,
    max_in_flight: _MaxInFlight = None,
    description: _Description = None,
    status: Annotated[EndpointStatus | None, typer.Option("--status", help="Disable it, or enable it again.")] = None,
) -> Output:
    """Change an endpoint. Omitted options leave their fields unchanged; `--filter none` removes all filters."""
    body = given(
        url=target, status=status, event_types=_types(events), filters=filters(filter_), signing=signing,
        custom_signing=custom_settings(custom_signing), signing_time=signing_time, retry_profile=retry_profile, ordered=ordered,
        rate_limit=rate_limit, max_in_flight=max_in_flight, description=description,
    )  # fmt: skip
    if not body:
        raise typer.BadParameter("Give at least one option to change; see --help.")
    return as_fields(client.write("PATCH", f"{_PATH}/{endpoint_id}", body))


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


@app.command("delete")
@with_client
def delete(client: Client, endpoint_id: _Id) -> Output:
    """Delete an endpoint."""
    client.request_json("DELETE", f"{_PATH}/{endpoint_id}")
    return Output({"deleted": endpoint_id}, f"Deleted {endpoint_id}.")


@app.command("preview")
@with_client
def preview(
    client: Client,
    endpoint_id: _Id,
    events: _Events = None,
    filter_: FilterOptions = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, max=100, help="How many recent events to check.")] = None,
) -> Output:
    """Show which recent events an endpoint would have received, with its own event types and filters or with others."""
    body = given(event_types=_types(events), filters=filters(filter_), limit=limit)
    return as_table(client.post(f"{_PATH}/{endpoint_id}/preview", body), "event_id", "type", "matches", "reason")


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


@app.command("rotate-secret")
@with_client
def rotate_secret(
    client: Client,
    endpoint_id: _Id,
    grace_seconds: Annotated[
        int | None,
        typer.Option("--grace-seconds", min=0, max=604_800, help="How long the previous secret signs too; a day by default."),
    ] = None,
) -> Output:
    """Replace an endpoint's secret. The new one is shown only in this response."""
    return as_fields(client.post(f"{_PATH}/{endpoint_id}/rotate-secret", given(grace_seconds=grace_seconds)))


@app.command("signing-example")
@with_client
def signing_example(
    client: Client,
    endpoint_id: _Id,
    body: Annotated[str | None, typer.Option("--body", help="The raw body to sign; by default a sample.")] = None,
    timestamp: Annotated[int | None, typer.Option("--timestamp", min=0, help="Unix seconds; by default now.")] = None,
    event_id: Annotated[str | None, typer.Option("--id", help="The webhook-id.")] = None,
) -> Output:
    """Show step by step how a webhook to this endpoint is signed."""
    result = client.post(f"{_PATH}/{endpoint_id}/signing-example", given(body=body, timestamp=timestamp, id=event_id))
    return Output(result, "\n".join(f"{number}. {step}" for number, step in enumerate(result["steps"], 1)))


def custom_settings(path: Path | None) -> Any:
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
    body = given(since=since, until=until, which=which, event_types=_types(events), dry_run=dry_run)
    with client.waiting("Recovering events"):
        found = client.post(f"{_PATH}/{endpoint_id}/recover", body, timeout=_RECOVERY_SECONDS)
    lines = [f"{count:>9}  {event_type}" for event_type, count in found["by_type"].items()]
    return Output(found, "\n".join([f"{found['count']} events {'would be' if dry_run else 'are'} sent again.", *lines]))


def _types(events: list[str] | None) -> list[str] | None:
    return event_types(events) or None
