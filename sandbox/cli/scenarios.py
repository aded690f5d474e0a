"""`psp scenarios`: which scenarios apply, what one would do, and scenarios of your own."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, ReadyFile, Url, connect, show

app = typer.Typer(help="What payouts do, and scenarios of your own.", no_args_is_help=True)
_PATH = "/sandbox/v1/scenarios"


@app.command("list")
def list_(url: Url = DEFAULT_URL, api_key: ApiKey = None, ready_file: ReadyFile = None, as_json: AsJson = False) -> None:
    """List all scenarios that apply; the first that matches wins. Exit code 0: listed; 1: refused; 2: wrong usage."""
    page = connect(url, api_key, ready_file).get(_PATH)
    lines = [
        f"{rule['name']:<22}{_match(rule['match']):<34}{' → '.join(step['to'] for step in rule['steps'])}"
        + (f"  (own: {rule['id']})" if rule["id"] else "")
        for rule in page["data"]
    ]
    show(page, as_json=as_json, text="\n".join(lines))


@app.command("explain")
def explain(
    amount: Annotated[str, typer.Argument(help="The amount, such as 1500.00.")],
    account: Annotated[str, typer.Argument(help="The account's number.")],
    bank: Annotated[str, typer.Option("--bank", help="The bank's code.")] = "HBL",
    scenario: Annotated[str | None, typer.Option("--scenario", help="As the X-Sandbox-Scenario header would say.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
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
    found = connect(url, api_key, ready_file).post(f"{_PATH}/explain", body)
    lines = [f"{found['scenario']} ({found['source']}), by {', '.join(found['matched_by']) or 'the default'}"]
    lines += [f"  {step['at']:>8} s  {step['to']:<11}{step['failure_code'] or ''}" for step in found["steps"]]
    show(found, as_json=as_json, text="\n".join(lines))


@app.command("add")
def add(
    file: Annotated[
        Path, typer.Argument(help="A JSON file as POST /sandbox/v1/scenarios takes it.", dir_okay=False, exists=True)
    ],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a scenario of your own. Exit code 0: made; 1: refused; 2: wrong usage."""
    try:
        body = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file} holds no JSON: {error}") from error
    rule = connect(url, api_key, ready_file).post(_PATH, body)
    show(rule, as_json=as_json, text=f"{rule['id']}  {rule['name']}")


@app.command("delete")
def delete(
    rule_id: Annotated[str, typer.Argument(help="The id of a scenario of your own.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
) -> None:
    """Delete a scenario of your own. Exit code 0: deleted; 1: not found; 2: wrong usage."""
    connect(url, api_key, ready_file).ask("DELETE", f"{_PATH}/{rule_id}")


def _match(match: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in match.items()) or "everything else"
