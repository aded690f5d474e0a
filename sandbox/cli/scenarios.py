"""`psp scenarios`: list and explain scenarios, and add your own."""

from typing import Annotated, Any

import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.derived import with_options_of
from sandbox.cli.options import Bank, ScenarioName, Wallet, destination, given

app = App("Scenarios that payouts follow: the built-in ones and your own.")
_PATH = "/sandbox/v1/scenarios"


@app.command("explain")
@with_client
@with_options_of("scenarios", "explain")
def explain(
    client: Client,
    amount: Annotated[str, typer.Argument(help="The amount, such as 1500.00.")],
    account: Annotated[str, typer.Argument(help="The account's number.")],
    bank: Bank = None,
    wallet: Wallet = None,
    reference: Annotated[str, typer.Option("--reference", help="The payout's reference.")] = "explain",
    scenario: ScenarioName = None,
    *,
    rest: dict[str, Any],
) -> Output:
    """Explain which scenario a payout would follow, with its steps and their times. Creates nothing."""
    body = {
        "merchant_reference": reference,
        "amount": amount,
        **(destination(account, bank, wallet) or {}),
        **given(scenario_header=scenario),
        **rest,
    }
    found = client.post(f"{_PATH}/explain", body)
    lines = [f"{found['scenario']} ({found['source']}), by {', '.join(found['matched_by']) or 'the default'}"]
    lines += [f"  {step['at']!s:>8} s  {step['to']:<11}{step['failure_code'] or ''}" for step in found["steps"]]
    return Output(found, "\n".join(lines))


@app.shows("catalogue")
def _examples(found: dict[str, Any]) -> str:
    return "\n".join(
        f"{entry['example']['account_number']:<18}{entry['example']['amount']:>12}  {entry['scenario']['name']:<22}"
        f"{path_of(entry['scenario']['steps'])}"
        for entry in found["scenarios"]
    )


@app.shows("add")
def _added(rule: dict[str, Any]) -> str:
    return f"{rule['id']}  {rule['name']}"


@app.shows("list")
def _lines(page: dict[str, Any]) -> str:
    return "\n".join(map(_line, page["data"]))


@app.shows("get", "replace")
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
