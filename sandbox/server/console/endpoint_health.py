"""Say how an endpoint does, as the API's list of their health has it."""

from collections.abc import Mapping
from typing import Any, Final

from sandbox.server.console.data_table import Column
from sandbox.server.console.texts import moment
from sandbox.server.console.trace import in_words, seconds_between
from sandbox.webhooks.endpoints.health import MAX_DELIVERIES

Row = Mapping[str, Any]

COLUMNS: Final = (
    Column("state", "State", "status", link="/webhooks/{endpoint_id}"),
    Column("url", "Endpoint", "url", link="/webhooks/{endpoint_id}"),
    Column("succeeded", "Attempts that succeeded", value=lambda row: share(row)),
    Column("trouble", "Trouble"),
    Column("last_failure.failure", "Last failure", link="/webhooks/deliveries/{last_failure.delivery_id}"),
    Column("last_failure.at", "At", "time"),
)


def in_short(health: Row, now: str) -> dict[str, Any]:
    """Return the row of an endpoint: its health, with its state and its trouble in words."""
    return {**health, "state": health["state"].replace("_", " "), "trouble": trouble(health, now)}


def share(health: Row) -> str | None:
    """Return how many of an endpoint's last attempts succeeded; None if there were none."""
    total = health["succeeded"] + health["failed"]
    return f"{100 * health['succeeded'] // total} % ({health['succeeded']} of {total})" if total else None


def trouble(health: Row, now: str) -> str | None:
    """Return what is wrong with an endpoint, and since when; None if nothing is. An event that has failed for days comes first:
    an answer to another one in between does not end its trouble.
    """
    said = [health["disabled_reason"]] if health["disabled_reason"] else []
    if event := health["oldest_failing"]:
        attempts = f"{event['attempts']} {'attempt' if event['attempts'] == 1 else 'attempts'}"
        lasted = in_words(seconds_between(event["since"], now))
        said.append(f"{event['event_type']} has failed for {lasted}, since {moment(event['since'])}, in {attempts}.")
    if health["failing_since"]:
        said.append(f"No attempt has succeeded for {in_words(seconds_between(health['failing_since'], now))}.")
    if given_up := health["given_up"]:
        most = "At least " if given_up == MAX_DELIVERIES else ""
        said.append(f"{most}{given_up} {'delivery was' if given_up == 1 else 'deliveries were'} given up.")
    return " ".join(said) or None
