"""`psp scenarios`: which scenarios apply, what one would do, and scenarios of your own."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.client import Client, Shown, with_client

app = typer.Typer(help="What payouts do, and scenarios of your own.", no_args_is_help=True)
_PATH = "/sandbox/v1/scenarios"


@app.command("list")
@with_client
def list_(client: Client) -> Shown:
    """List all scenarios that apply; the first that matches wins. Exit code 0: listed; 1: refused; 2: wrong usage."""
    page = client.get(_PATH)
    lines = [
        f"{rule['name']:<22}{_match(rule['match']):<34}{' → '.join(step['to'] for step in rule['steps'])}"
        + (f"  (own: {rule['id']})" if rule["id"] else "")
        for rule in page["data"]
    ]
    return Shown(page, "\n".join(lines))


@app.command("explain")
@with_client
def explain(
    client: Client,
    amount: Annotated[str, typer.Argument(help="The amount, such as 1500.00.")],
    account: Annotated[str, typer.Argument(help="The account's number.")],
    bank: Annotated[str, typer.Option("--bank", help="The bank's code.")] = "HBL",
    scenario: Annotated[str | None, typer.Option("--scenario", help="As the X-Sandbox-Scenario header would say.")] = None,
) -> Shown:
    """Say which scenario a payout would follow, why, and what would happen when. Creates nothing.

    Exit code 0: told; 1: refused; 2: wrong usage.
    """
    body = {
        "merchant_reference": "explain",
        "amount": amount,
        "dest_type": "BANK",
        "bank_code": bank,
        "account_number": account,
        **({"scenario_header": scenario} if scenario else {}),
    }
    found = client.post(f"{_PATH}/explain", body)
    lines = [f"{found['scenario']} ({found['source']}), by {', '.join(found['matched_by']) or 'the default'}"]
    lines += [f"  {step['at']:>8} s  {step['to']:<11}{step['failure_code'] or ''}" for step in found["steps"]]
    return Shown(found, "\n".join(lines))


@app.command("add")
@with_client
def add(
    client: Client,
    file: Annotated[
        Path, typer.Argument(help="A JSON file as POST /sandbox/v1/scenarios takes it.", dir_okay=False, exists=True)
    ],
) -> Shown:
    """Make a scenario of your own. Exit code 0: made; 1: refused; 2: wrong usage."""
    try:
        body = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file} holds no JSON: {error}") from error
    rule = client.post(_PATH, body)
    return Shown(rule, f"{rule['id']}  {rule['name']}")


@app.command("delete")
@with_client
def delete(
    client: Client,
    rule_id: Annotated[str, typer.Argument(help="The id of a scenario of your own.")],
) -> Shown:
    """Delete a scenario of your own. Exit code 0: deleted; 1: not found; 2: wrong usage."""
    client.ask("DELETE", f"{_PATH}/{rule_id}")
    return Shown({"deleted": rule_id}, f"Deleted {rule_id}.")


def _match(match: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in match.items()) or "everything else"
