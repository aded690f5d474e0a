"""`psp payouts`: create, show, list, decide on and simulate payouts."""

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.derived import with_options_of
from sandbox.cli.failures import not_met
from sandbox.cli.files import batch_output, read_items
from sandbox.cli.options import Bank, ScenarioName, Wallet, destination, multi_choice_option
from sandbox.cli.references import PayoutId
from sandbox.domain.enumerations import PayoutStatus

app = App("Payouts of the merchant whose key is used.")
_PATH = "/api/v1/payouts"
_Key = Annotated[str | None, typer.Option("--idempotency-key", help="Default: a random one.")]


@app.command("create")
@with_client
@with_options_of("payouts", "create")
def create(
    client: Client,
    amount: Annotated[str, typer.Argument(help="The amount, such as 1500.00.")],
    account: Annotated[str, typer.Argument(help="The account number. Its last four digits select the scenario.")],
    bank: Bank = None,
    wallet: Wallet = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Your own reference. Default: a random one.")] = None,
    scenario: ScenarioName = None,
    key: _Key = None,
    *,
    rest: dict[str, Any],
) -> Output:
    """Create a payout, to HBL unless --bank or --wallet is given."""
    body = {
        "merchant_reference": reference or f"cli-{uuid.uuid4()}",
        "amount": amount,
        **(destination(account, bank, wallet) or {}),
        **rest,
    }
    payout = client.post(_PATH, body, key=key, headers=_header(scenario))
    return Output(payout, _line(payout))


@app.command("batch")
@with_client
def batch(
    client: Client,
    file: Annotated[Path, typer.Argument(help="JSON or CSV: 1 to 1000 payouts.", dir_okay=False, exists=True)],
    scenario: ScenarioName = None,
    key: _Key = None,
) -> Output:
    """Create many payouts in one request. Each succeeds or fails independently; the exit code is 1 if any is refused.

    JSON is a list of bodies as POST /payouts takes them, or {"payouts": list}. A CSV file has a header with the field names;
    metadata.KEY is a key of the metadata.
    """
    found = client.post(f"{_PATH}/batch", {"payouts": read_items(file, "payouts")}, key=key, headers=_header(scenario))
    return batch_output(found, "payout", _line)


@app.command("get")
@with_client
def get(
    client: Client,
    payout_id: PayoutId,
    wait_for: Annotated[
        list[str] | None,
        multi_choice_option("--wait-for", PayoutStatus, "Wait until it reaches one of these states, such as SUCCESS,FAILED."),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0, max=30, help="Seconds to wait.")] = 10,
) -> Output:
    """Show a payout and its timeline. With --wait-for, the exit code is 4 if it does not reach one of the states in time."""
    wanted = wait_for or []
    with client.waiting(f"Waiting for {' or '.join(wanted)}"):
        payout = client.get(f"{_PATH}/{payout_id}", wait_for=wanted, timeout=timeout if wanted else None)
    timeline = client.get(f"{_PATH}/{payout_id}/timeline")["data"]
    lines = [_line(payout), *map(_change, timeline)]
    failure = None
    if wanted and not _reached(timeline, wanted):
        failure = not_met(f"The payout is {payout['status']}, not {' or '.join(wanted)}.")
    return Output({**payout, "timeline": timeline}, "\n".join(lines), failure)


@app.shows("actions")
def _actions(found: dict[str, Any]) -> str:
    lines = [f"{found['payout_id']}  {found['status']}"]
    for action in found["actions"]:
        command = " ".join([action["operation"].removesuffix("_payout"), *action["body"].values()])
        admin = " Needs an admin key." if action["access"] == "admin" else ""
        lines.append(f"  {command:<20} {action['description']}{admin}")
    return "\n".join(lines if found["actions"] else [*lines, "  Nothing can change it."])


def _reached(timeline: list[dict[str, Any]], wanted: list[str]) -> bool:
    """Return whether a payout has reached one of these states since it was last reinitiated."""
    retries = [index for index, entry in enumerate(timeline) if entry["from"] == "FAILED"]
    return any(entry["to"] in wanted for entry in timeline[retries[-1] if retries else 0 :])


def _header(scenario: str | None) -> dict[str, str] | None:
    return {"X-Sandbox-Scenario": scenario} if scenario else None


def _change(entry: dict[str, Any]) -> str:
    return f"  {entry['at']}  {entry['to']:<10} {entry['cause']}"


@app.shows("approve", "reject", "cancel", "reinitiate", "simulate")
def _line(payout: dict[str, Any]) -> str:
    failure = f" ({payout['failure_code']})" if payout["failure_code"] else ""
    to = f"{payout['amount']} {payout['currency']} to {payout['account_number']}"
    return f"{payout['merchant_reference']}  {payout['id']}  {to}  {payout['status']}{failure}"
