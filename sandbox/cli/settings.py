"""`psp settings`: show and change a merchant's settings."""

from typing import Annotated, Any, Final

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, as_fields, with_client
from sandbox.domain.choices import DefaultScenario

app = App("Show and change the merchant's settings.")
_PATH: Final = "/sandbox/v1/settings"


@app.command("show")
@with_client
def show(client: Client) -> Output:
    """Show all settings."""
    return as_fields(client.get(_PATH))


@app.command("set")
@with_client
def set_(
    client: Client,
    default_scenario: Annotated[
        DefaultScenario | None,
        typer.Option("--default-scenario", help="The scenario for payouts that match no other."),
    ] = None,
    review_threshold: Annotated[
        str | None, typer.Option("--review-threshold", help="Review payouts of this amount or more; none disables reviews.")
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option("--rate-limit", help="Requests per minute that the API accepts; none disables the limit.")
    ] = None,
    approvals_expire_after: Annotated[
        str | None,
        typer.Option(
            "--approvals-expire-after", help="Seconds on the merchant's clock to wait for approval; none waits forever."
        ),
    ] = None,
) -> Output:
    """Change settings. Omitted options leave their settings unchanged."""
    body: dict[str, Any] = {} if default_scenario is None else {"default_scenario": default_scenario}
    if review_threshold is not None:
        body["review_threshold"] = None if review_threshold == "none" else review_threshold
    for name, value in (("rate_limit", rate_limit), ("approvals_expire_after", approvals_expire_after)):
        if value is not None:
            body[name] = _whole(name, value)
    if not body:
        raise typer.BadParameter("Give at least one setting; see --help.")
    return as_fields(client.write("PATCH", _PATH, body))


def _whole(name: str, value: str) -> int | None:
    if value == "none":
        return None
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter(f"--{name.replace('_', '-')} must be a whole number, or none.") from None
