"""`psp trigger EVENT`: make an event happen through the same states as in production."""

import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

import typer

from sandbox.cli import bulk_credit
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.events import line
from sandbox.cli.failures import not_met
from sandbox.cli.options import completion, pairs
from sandbox.domain.enumerations import EventType
from sandbox.http.body_errors import suggestion

_MAX_WAIT_SECONDS: Final = 30
"""Seconds to wait for a state: the longest time that the API holds a request."""


FIELDS: Final = (
    "amount", "merchant_reference", "dest_type", "bank_code", "wallet_code", "account_number", "account_title",
)  # fmt: skip
"""The payout's fields that `--set` accepts. The others decide which events happen, or have one value only."""
_METADATA: Final = "metadata."
_AMOUNT: Final = "100.00"


@dataclass(frozen=True, slots=True)
class _Route:
    """How to make a payout cause an event: its built-in scenario, the state to wait for, and the actions to take then."""

    scenario: str
    until: str
    actions: tuple[str, ...] = ()


# Every route goes through real states: a failed or paid payout was in PROCESSING before. The scenario `returned` waits a minute
# after SUCCESS, and forever if the clock is frozen, so the return is simulated.
ROUTES: Final[dict[EventType, _Route]] = {
    "payout.requested": _Route("pending", "REQUESTED"),
    "payout.created": _Route("pending", "PENDING"),
    "payout.processing": _Route("slow_success", "PROCESSING"),
    "payout.retrying": _Route("retry_then_success", "RETRY"),
    "payout.on_hold": _Route("on_hold", "ON_HOLD"),
    "payout.in_review": _Route("in_review", "IN_REVIEW"),
    "payout.succeeded": _Route("success", "SUCCESS"),
    "payout.failed": _Route("failed", "FAILED"),
    "payout.cancelled": _Route("pending", "PENDING", ("cancel",)),
    "payout.rejected": _Route("pending", "REQUESTED", ("reject",)),
    "payout.returned": _Route("success", "SUCCESS", ("RETURNED",)),
    "payout.reinitiated": _Route("failed", "FAILED", ("reinitiate",)),
}


@with_client
def trigger(
    client: Client,
    event: Annotated[EventType, typer.Argument(help="The event's type.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help=f"A field of the payout: {', '.join(FIELDS)} or {_METADATA}KEY. A bulk credit has only an amount. "
            "Can be repeated.",
            autocompletion=completion(tuple(f"{field}=" for field in (*FIELDS, _METADATA))),
        ),
    ] = None,
    amount: Annotated[str | None, typer.Option("--amount", help="Short for --set amount=AMOUNT. Default: 100.00.")] = None,
) -> Output:
    """Create a payout or a bulk credit, move it to the event through all its real states, and print the event.

    For example: psp trigger payout.failed --set amount=250.00 --set metadata.order=7

    An account number that means an outcome, such as ...0007, keeps its meaning if the outcome is the event's.

    A worker processes it like any other: a payout passes through PROCESSING before payout.failed. The exit code is 4 if the
    event does not happen in time.
    """
    is_credit = event == "bulk_credit.completed"
    fields = pairs("--set", settings)
    if amount is not None:
        fields["amount"] = amount
    for field in fields:
        _check(field, is_credit=is_credit)
    with client.waiting(f"Waiting for {event}"):
        found = _credit_new_user(client, fields.get("amount", _AMOUNT)) if is_credit else _move_payout_to(client, event, fields)
    return Output(found, line(found))


def _check(field: str, *, is_credit: bool) -> None:
    """Raise BadParameter if a field cannot be set."""
    known = ("amount",) if is_credit else FIELDS
    if field not in known and (is_credit or not field.removeprefix(_METADATA) or not field.startswith(_METADATA)):
        names = ", ".join((*known, *(() if is_credit else (f"{_METADATA}KEY",))))
        hint = suggestion(field, known) or "."
        raise typer.BadParameter(f"--set cannot set {field!r}, only {names}{hint}")


def _move_payout_to(client: Client, event: EventType, fields: Mapping[str, str]) -> dict[str, Any]:
    route = ROUTES[event]
    is_wallet = "wallet_code" in fields or fields.get("dest_type", "").upper() == "WALLET"
    body: dict[str, Any] = {
        "merchant_reference": f"trigger-{uuid.uuid4()}",
        "amount": _AMOUNT,
        "dest_type": "WALLET" if is_wallet else "BANK",
        **({} if is_wallet else {"bank_code": "HBL"}),
        "account_number": "03001234567" if is_wallet else "12345678900004",
        **{name: value for name, value in fields.items() if name in FIELDS},
        "requires_approval": route.until == "REQUESTED",
    }
    metadata = {name.removeprefix(_METADATA): value for name, value in fields.items() if name.startswith(_METADATA)}
    if metadata:
        body["metadata"] = metadata
    path = "/api/v1/payouts"
    scenario = _scenario_of_account(body["account_number"], route.until) or route.scenario
    payout_id = client.post(path, body, headers={"X-Sandbox-Scenario": scenario})["id"]
    # The API responds immediately if the payout has already passed through the state.
    payout = client.get(f"{path}/{payout_id}", wait_for=route.until, timeout=_MAX_WAIT_SECONDS)
    for action in route.actions:
        if action.isupper():
            client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", {"status": action})
        else:
            client.write("PATCH" if action == "reject" else "POST", f"{path}/{payout_id}/{action}")
    events: list[dict[str, Any]] = client.get("/api/v1/events", payout_id=payout_id, limit=100)["data"]
    found = next((item for item in events if item["type"] == event), None)
    if found is None:
        raise not_met(f"Payout {payout_id} is {payout['status']} and has no {event} event.")
    return found


def _scenario_of_account(account_number: str, state: str) -> str | None:
    """Return the built-in scenario that an account number chooses, if a payout reaches the state with it while we wait."""
    from sandbox.payouts.scenarios.builtin import load_catalogue

    for scenario in load_catalogue().scenarios:
        suffix, states = scenario.match.suffix, [step.to for step in scenario.steps]
        if suffix is not None and account_number.endswith(suffix) and state in states:
            before = scenario.steps[: states.index(state) + 1]
            if sum((step.after for step in before), timedelta(0)) < timedelta(seconds=_MAX_WAIT_SECONDS):
                return scenario.name
    return None


def _credit_new_user(client: Client, amount: str) -> dict[str, Any]:
    user_id = client.post("/api/v1/users", {"name": "Bulk Credit"})["id"]
    activity_id = bulk_credit.upload(client, "trigger.csv", io.BytesIO(f"uuid,amount\n{user_id},{amount}\n".encode()))
    bulk_credit.watch(client, activity_id, 2 * _MAX_WAIT_SECONDS)
    events: list[dict[str, Any]] = client.get("/api/v1/events", limit=100)["data"]
    found = next((item for item in events if item["data"].get("activity_id") == activity_id), None)
    if found is None:
        raise not_met(f"Bulk credit {activity_id} is done, but has no bulk_credit.completed event.")
    return found
