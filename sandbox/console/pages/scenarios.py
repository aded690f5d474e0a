"""A merchant's own scenarios: the list, a form for one, and what a payout would do."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

from sandbox.console.data_table import Column, Row, Table
from sandbox.console.routing import Pages
from sandbox.console.view import View
from sandbox.domain.payout_states import FAILURES
from sandbox.http.responses import Response
from sandbox.scenarios.rules import StepStatus

pages = Pages()
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
    Column("name", "Name", link="/console/world/scenarios/{id}"),
    *_WHAT,
)
BUILT_IN: Final = (Column("name", "Name", link="/console/catalogue"), *_WHAT)
EXPLAINED: Final = (
    Column("to", "Status", "status"),
    Column("at", "After creation", value=lambda row: "uncertain" if row["at"] is None else f"{row['at']:g} s"),
    Column("failure_code", "Failure", "code"),
    Column("event_type", "Event", "code"),
    Column("money", "Money"),
    Column("overall_probability", "Probability", "number"),
    Column("wait", "Then", value=lambda row: "waits" if row["wait"] else None),
)


@pages.page("/console/world/scenarios")
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


@pages.page("/console/world/scenarios/new")
async def new_scenario(view: View) -> Response:
    """Show an empty form for a scenario."""
    return await _form(view, None)


@pages.page("/console/world/scenarios/{rule_id}")
async def scenario(view: View) -> Response:
    """Show a scenario of the merchant's own with its form."""
    return await _form(view, await view.call("get_scenario", path={"rule_id": view.path_parameters["rule_id"]}))


async def _form(view: View, rule: Row | None) -> Response:
    directory = await view.call("get_directory", shown=False)
    steps: list[Mapping[str, Any]] = [{"to": "PROCESSING"}] if rule is None else rule["steps"]
    rows = min(MAX_ROWS, max(MIN_ROWS, len(steps) + 2))
    return await view.render(
        "scenario.html",
        rule=rule,
        match={} if rule is None else rule["match"],
        what="" if rule is None else f"For payouts with: {_match(rule['match'])}. What happens: {_steps(rule['steps'])}.",
        steps=[*steps, *({} for _ in range(rows - len(steps)))],
        shown_rows=max(SHOWN_ROWS, len(steps)),
        statuses=get_args(StepStatus),
        codes=list(FAILURES),
        banks=_choices(directory["banks"]),
        wallets=_choices(directory["wallets"]),
    )


def _choices(directory: Iterable[Mapping[str, str]]) -> list[tuple[str, str]]:
    return [(entry["code"], f"{entry['code']} · {entry['name']}") for entry in directory]
