"""`psp scenarios`: list and explain scenarios, and add your own."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.files import read_json
from sandbox.cli.options import Bank, MetadataPairs, ScenarioName, Wallet, destination, given, pairs, upper
from sandbox.cli.references import USER, ScenarioId

app = App("Scenarios that payouts follow: the built-in ones and your own.")
_PATH = "/sandbox/v1/scenarios"
_File = Annotated[
    Path, typer.Argument(help="A JSON file with the body of POST /sandbox/v1/scenarios.", dir_okay=False, exists=True)
]


@app.command("list")
@with_client
def list_(client: Client) -> Output:
    """List all scenarios with their steps and delays. The first one that matches a payout wins."""
    page = client.get(_PATH)
    return Output(page, "\n".join(map(_line, page["data"])))


@app.command("catalogue")
@with_client
def catalogue(
    client: Client,
    bank: Annotated[
        str | None, typer.Option("--bank", help="The bank whose accounts are the examples.", callback=upper)
    ] = None,
) -> Output:
    """List an account number and an amount for each scenario, and what happens to such a payout."""
    found = client.get("/sandbox/v1/catalogue", **given(bank_code=bank))
    lines = [
        f"{entry['example']['account_number']:<18}{entry['example']['amount']:>12}  {entry['scenario']['name']:<22}"
        f"{path_of(entry['scenario']['steps'])}"
        for entry in found["scenarios"]
    ]
    return Output(found, "\n".join(lines))


@app.command("get")
@with_client
def get(client: Client, rule_id: ScenarioId) -> Output:
    """Show one of your own scenarios."""
    rule = client.get(f"{_PATH}/{rule_id}")
    return Output(rule, _line(rule))


@app.command("explain")
@with_client
def explain(
    client: Client,
    amount: Annotated[str, typer.Argument(help="The amount, such as 1500.00.")],
    account: Annotated[str, typer.Argument(help="The account's number.")],
    bank: Bank = None,
    wallet: Wallet = None,
    reference: Annotated[str, typer.Option("--reference", help="The payout's reference.")] = "explain",
    scenario: ScenarioName = None,
    user_id: Annotated[
        str | None, typer.Option("--user-id", help="The id or external_id of the user of the payout."), USER
    ] = None,
    metadata: MetadataPairs = None,
    rule: Annotated[
        Path | None,
        typer.Option("--rule", help="A JSON file with a scenario to try as if you had added it.", dir_okay=False, exists=True),
    ] = None,
) -> Output:
    """Explain which scenario a payout would follow, with its steps and their times. Creates nothing."""
    body = {
        "merchant_reference": reference,
        "amount": amount,
        **(destination(account, bank, wallet) or {}),
        **given(scenario_header=scenario, user_id=user_id, metadata=pairs("--metadata", metadata) or None),
        **given(rule=None if rule is None else read_json(rule)),
    }
    found = client.post(f"{_PATH}/explain", body)
    lines = [f"{found['scenario']} ({found['source']}), by {', '.join(found['matched_by']) or 'the default'}"]
    lines += [f"  {step['at']!s:>8} s  {step['to']:<11}{step['failure_code'] or ''}" for step in found["steps"]]
    return Output(found, "\n".join(lines))


@app.command("add")
@with_client
def add(client: Client, file: _File) -> Output:
    """Add your own scenario."""
    rule = client.post(_PATH, read_json(file))
    return Output(rule, f"{rule['id']}  {rule['name']}")


@app.command("replace")
@with_client
def replace(client: Client, rule_id: ScenarioId, file: _File) -> Output:
    """Replace one of your own scenarios. Payouts that already follow it keep the old steps."""
    rule = client.write("PUT", f"{_PATH}/{rule_id}", read_json(file))
    return Output(rule, _line(rule))


@app.command("delete")
@with_client
def delete(client: Client, rule_id: ScenarioId) -> Output:
    """Delete one of your own scenarios."""
    client.request_json("DELETE", f"{_PATH}/{rule_id}")
    return Output({"deleted": rule_id}, f"Deleted {rule_id}.")


def _line(rule: dict[str, Any]) -> str:
    own = f"  (own: {rule['id']})" if rule["id"] else ""
    return f"{rule['name']:<22}{_match(rule['match']):<34}{path_of(rule['steps'])}{own}"


def path_of(steps: list[dict[str, Any]]) -> str:
    """Return the steps in one line, such as `PROCESSING → RETRY → (2 s) PROCESSING → SUCCESS`."""
    return " → ".join(map(_step, steps)) or "stays PENDING"


def _step(step: dict[str, Any]) -> str:
    after = f"({step['after']:g} s) " if step["after"] else ""
    chance = f" ({step['probability']:.0%})" if step["probability"] < 1 else ""
    code = f" {step['failure_code']}" if step["failure_code"] else ""
    return f"{after}{step['to']}{code}{chance}{', waits' if step['wait'] else ''}"


def _match(match: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in match.items()) or "everything else"
