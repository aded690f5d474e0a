"""A merchant's own scenarios: the list, a form for one, and what a payout would do."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from sandbox.domain.failure_codes import FAILURES
from sandbox.http.responses import Response
from sandbox.payouts.scenarios.rules import StepStatus
from sandbox.server.console.calls import Refused
from sandbox.server.console.data_table import Column, Row, Table
from sandbox.server.console.forms import object_of
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
FORM: Final = "scenario"
MIN_ROWS: Final = 8
"""Rows for steps in the form; a scenario with more steps has two more rows than steps."""
SHOWN_ROWS: Final = 4
MAX_ROWS: Final = 20
_NAMES: Final = {
    "suffix": "account ends in",
    "account_number": "account",
    "bank_code": "bank",
    "wallet_code": "wallet",
    "amount_from": "amount from",
    "amount_to": "amount up to",
    "user_id": "user",
    "scenario_header": "header",
}


def _match(match: Mapping[str, Any]) -> str:
    """Return a scenario's conditions as text, such as `bank HBL, amount up to 5000.00`."""
    parts = [f"{_NAMES[name]} {value}" for name, value in match.items() if name != "metadata"]
    parts += [f"metadata {name}={value}" for name, value in match.get("metadata", {}).items()]
    return ", ".join(parts) or "everything else"


def _steps(steps: Iterable[Mapping[str, Any]]) -> str:
    """Return a scenario's steps as text, such as `PROCESSING → after 3 s FAILED (BANK_REJECTED)`."""
    return " → ".join(_step(step) for step in steps) or "stays PENDING"


def _step(step: Mapping[str, Any]) -> str:
    parts = [f"after {step['after']:g} s"] if step["after"] else []
    parts.append(step["to"])
    if step["failure_code"]:
        parts.append(f"({step['failure_code']})")
    if step["probability"] < 1:
        parts.append(f"with probability {step['probability']:g}")
    if step["wait"]:
        parts.append("and waits")
    return " ".join(parts)


_WHAT: Final = (
    Column("match", "For payouts with", value=lambda row: _match(row["match"])),
    Column("steps", "What happens", value=lambda row: _steps(row["steps"])),
)
OWN: Final = (
    Column("position", "Order", "number"),
    Column("name", "Name", link="/world/scenarios/{id}"),
    *_WHAT,
)
BUILT_IN: Final = (Column("name", "Name", link="/catalogue"), *_WHAT)
EXPLAINED: Final = (
    Column("to", "Status", "status"),
    Column("at", "After creation", value=lambda row: "uncertain" if row["at"] is None else f"{row['at']:g} s"),
    Column("failure_code", "Failure", "code"),
    Column("event_type", "Event", "code"),
    Column("money", "Money"),
    Column("overall_probability", "Probability", "number"),
    Column("wait", "Then", value=lambda row: "waits" if row["wait"] else None),
)


@pages.page("/world/scenarios")
async def scenarios(view: View) -> Response:
    """List the scenarios in the order in which they are tried, with a form that explains what a payout would do."""
    found, directory = await asyncio.gather(view.call("list_scenarios"), view.call("get_directory", shown=False))
    empty = "No scenario of your own. Add one if the built-in ones do not do what you need."
    own = [row for row in found["data"] if row["id"] is not None]
    tables = [
        Table("scenarios", "Your own scenarios; the first that matches wins", OWN, own, empty),
        Table("built-in", "Built-in scenarios", BUILT_IN, [row for row in found["data"] if row["id"] is None]),
    ]
    explained = view.fields("explain").result
    return await view.render(
        "scenarios.html",
        tables=tables,
        banks=_choices(directory["banks"]),
        wallets=_choices(directory["wallets"]),
        explained=explained,
        steps=None if explained is None else Table("explained", "What happens", EXPLAINED, explained["steps"]),
    )


@pages.page("/world/scenarios/new")
async def new_scenario(view: View) -> Response:
    """Show an empty form for a scenario."""
    return await _form(view, None)


@pages.page("/world/scenarios/{rule_id}")
async def scenario(view: View) -> Response:
    """Show a scenario of the merchant's own with its form."""
    return await _form(view, await view.call("get_scenario", path={"rule_id": view.path_parameters["rule_id"]}))


async def _form(view: View, rule: Row | None) -> Response:
    directory = await view.call("get_directory", shown=False)
    form = view.fields(FORM)
    if form.state is not None:
        shown: Preview | None = await _preview(view, form.state.values)
    else:
        shown = None if rule is None else await _explain(view, _body(rule), "", "")
    steps: list[Mapping[str, Any]] = [{"to": "PROCESSING"}] if rule is None else rule["steps"]
    rows = min(MAX_ROWS, max(MIN_ROWS, len(steps) + 2))
    return await view.render(
        "scenario.html",
        form_id=FORM,
        rule=rule,
        preview=shown,
        match={} if rule is None else rule["match"],
        what="" if rule is None else f"For payouts with: {_match(rule['match'])}. What happens: {_steps(rule['steps'])}.",
        steps=[*steps, *({} for _ in range(rows - len(steps)))],
        shown_rows=max(SHOWN_ROWS, len(steps)),
        statuses=get_args(StepStatus),
        codes=list(FAILURES),
        banks=_choices(directory["banks"]),
        wallets=_choices(directory["wallets"]),
    )


@pages.fragment(FORM)
async def preview(view: View) -> Response:
    """Show what a payout would do if the scenario in the form were saved."""
    assert view.form is not None
    return await view.render("scenario_preview.html", preview=await _preview(view, view.form.values))


@dataclass(frozen=True, slots=True)
class Preview:
    """The path of a payout if a scenario existed, or the scenario's errors."""

    scenario: str
    account: str
    amount: str
    explained: Mapping[str, Any] | None
    steps: Table
    errors: Sequence[str]


async def _preview(view: View, values: Mapping[str, list[str]]) -> Preview:
    def last(name: str) -> str:
        return next(iter(values.get(name, [])[-1:]), "").strip()

    body = object_of((name, value) for name, given in values.items() for value in given)
    return await _explain(view, body, last("_account"), last("_amount"))


async def _explain(view: View, rule: Mapping[str, Any], account: str, amount: str) -> Preview:
    """Explain a payout to an account. By default, the payout meets the scenario's conditions."""
    match = rule.get("match", {})
    account = account or match.get("account_number") or f"12345678900001{match.get('suffix', '')}"[-14:]
    amount = amount or match.get("amount_from") or match.get("amount_to") or "1500.00"
    wallet = match.get("wallet_code")
    payout = {
        "merchant_reference": "TRY-1",
        "amount": amount,
        "account_number": account,
        "dest_type": "WALLET" if wallet else "BANK",
        **({"wallet_code": wallet} if wallet else {"bank_code": match.get("bank_code", "HBL")}),
        **{name: match[name] for name in ("user_id", "metadata", "scenario_header") if name in match},
    }
    explained, errors = None, []
    try:
        explained = await view.call("explain_scenario", body={**payout, "rule": rule}, preview=True, shown=False)
    except Refused as error:
        found = [(str(entry["field"]), entry["message"]) for entry in error.problem.get("errors", ())]
        errors = [f"{field.removeprefix('rule.')}: {message}" for field, message in found]
        errors = errors or [str(error.problem.get("detail", ""))]
    steps = Table("explained", "What happens", EXPLAINED, [] if explained is None else explained["steps"])
    return Preview(str(rule.get("name", "")), account, amount, explained, steps, errors)


def _body(rule: Row) -> dict[str, Any]:
    """Return the body that creates a scenario that exists."""
    steps = [{name: value for name, value in step.items() if value is not None} for step in rule["steps"]]
    return {"name": rule["name"], "match": rule["match"], "steps": steps, "position": rule["position"]}


def _choices(directory: Iterable[Mapping[str, str]]) -> list[tuple[str, str]]:
    return [(entry["code"], f"{entry['code']} · {entry['name']}") for entry in directory]
