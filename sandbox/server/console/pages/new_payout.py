"""A new payout: what will happen to it is shown while the form is filled in."""

import asyncio
import json
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandbox.http.responses import Response
from sandbox.server.console.calls import Refused
from sandbox.server.console.forms import object_of
from sandbox.server.console.routing import Pages
from sandbox.server.console.trace import in_words
from sandbox.server.console.view import View

pages = Pages()

FORM: Final = "new-payout"
LIVE_FIELDS: Final = ("merchant_reference", "amount", "account_number", "account_title", "metadata:pairs", "_scenario")
DEFAULTS: Final = {
    "_choice": "success",
    "amount": "1500.00",
    ":json": json.dumps({"dest_type": "BANK", "bank_code": "HBL"}),
    "account_number": "12345678900001",
    "account_title": "AYESHA KHAN",
}
_DESTINATION: Final = ("dest_type", "bank_code", "wallet_code", "account_number")
_REASONS: Final = {
    "suffix": "the account number's last digits",
    "account_number": "the account number",
    "bank_code": "the bank",
    "wallet_code": "the wallet",
    "amount_from": "the amount",
    "amount_to": "the amount",
    "user_id": "the user",
    "metadata": "the metadata",
    "scenario_header": "the scenario header",
}


@pages.page("/payouts/new")
async def new_payout(view: View) -> Response:
    """Show the form, filled in with an example, with values of the query, or with those of another payout (`like=ID`)."""
    scenarios, directory = await asyncio.gather(
        view.call("list_scenarios", shown=False), view.call("get_directory", shown=False)
    )
    # A field of the form that has no default is empty.
    start = defaultdict(str, DEFAULTS, merchant_reference=f"PAY-{secrets.token_hex(4).upper()}")
    if like := view.query.get("like"):
        found = await view.call_if_found("get_payout", path={"payout_id": like}, shown=False)
        start |= {} if found is None else _values_of(found)
    start |= _values_of_query(view)
    submitted = None if view.form is None or view.form.id != FORM else view.form.values
    return await view.render(
        "new_payout.html",
        form_id=FORM,
        start=start,
        choices=[choice for scenario in scenarios["data"] if (choice := _choice(scenario))],
        destinations=_destinations(directory),
        names=sorted({scenario["name"] for scenario in scenarios["data"]}),
        preview=await _preview(view, submitted or {name: [value] for name, value in start.items()}),
    )


@pages.fragment(FORM)
async def preview(view: View) -> Response:
    """Show what would happen to the payout in the form, the errors in the form, and the commands that create the payout."""
    assert view.form is not None
    return await view.render(
        "new_payout_preview.html", form_id=FORM, live_fields=LIVE_FIELDS, preview=await _preview(view, view.form.values)
    )


def _values_of(payout: Mapping[str, Any]) -> dict[str, str]:
    """Return the form's values for another payout like this one; its reference is new."""
    codes = {name: payout[name] for name in ("bank_code", "wallet_code") if payout[name]}
    return {
        "_choice": "",
        "amount": payout["amount"],
        ":json": json.dumps({"dest_type": payout["dest_type"], **codes}),
        "account_number": payout["account_number"],
        "account_title": payout["account_title"] or "",
        "metadata:pairs": "\n".join(f"{name}={value}" for name, value in payout["metadata"].items()),
    }


def _values_of_query(view: View) -> dict[str, str]:
    """Return the form's values for the account and the amount in the query, which links of the catalogue have."""
    values = view.given("account_number", "amount")
    for dest_type in ("BANK", "WALLET"):
        name = f"{dest_type.lower()}_code"
        if code := view.query.get(name):
            values[":json"] = json.dumps({"dest_type": dest_type, name: code})
    return {"_choice": "", **values} if values else {}


def _destinations(directory: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the banks and the wallets as choices, whose values are the body's fields."""
    kinds = (("Banks", "banks", "BANK", "bank_code"), ("Wallets", "wallets", "WALLET", "wallet_code"))
    return [
        (
            title,
            [
                (json.dumps({"dest_type": dest_type, code: found["code"]}), f"{found['code']}: {found['name']}")
                for found in directory[name]
            ],
        )
        for title, name, dest_type, code in kinds
    ]


def _choice(scenario: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a scenario as a choice, with the values that make a payout match it; None if the form cannot make it match."""
    match = {name: value for name, value in scenario["match"].items() if value not in (None, {})}
    if not match or "user_id" in match:
        return None
    fill: dict[str, str] = {}
    for name, value in match.items():
        if name == "suffix":
            fill["account_number"] = f"…{value}"
        elif name in ("bank_code", "wallet_code"):
            fill[":json"] = json.dumps({"dest_type": name.removesuffix("_code").upper(), name: value})
        elif name == "metadata":
            fill["metadata:pairs"] = "\n".join(f"{key}={text}" for key, text in value.items())
        elif name in ("amount_from", "amount_to"):
            fill.setdefault("amount", value)
        else:
            fill["_scenario" if name == "scenario_header" else name] = value
    return {**scenario, "match": match, "fill": json.dumps(fill), "path": _path(scenario["steps"])}


def _path(steps: Sequence[Mapping[str, Any]]) -> str:
    """Return a scenario's steps in a line."""
    parts = []
    for step in steps:
        delay = f" after {in_words(step['after'])}" if step["after"] else ""
        chance = f" ({step['probability']:.0%})" if step["probability"] < 1 else ""
        code = f" {step['failure_code']}" if step["failure_code"] else ""
        parts.append(f"{step['to']}{code}{delay}{chance}{', then waits' if step['wait'] else ''}")
    return " → ".join(parts) or "stays PENDING until you decide"


async def _preview(view: View, values: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the scenario of a payout with a form's values, or the errors, and the commands that create the payout.

    Errors are by field name. A field that is still empty is missing rather than wrong.
    """
    body = object_of((name, value) for name, given in values.items() for value in given)
    scenario = next(iter(values.get("_scenario", ())), "").strip()
    chosen = next(iter(values.get("_choice", ())), "")
    facts = {**body, **({"scenario_header": scenario} if scenario else {})}
    destination: dict[str, Any] = {name: body[name] for name in _DESTINATION if name in body}
    explained, verified = await asyncio.gather(_try(view, "explain_scenario", facts), _try(view, "verify_account", destination))
    found: dict[str, Any] = {
        "command": view.command("create_payout", body=body, scenario=scenario),
        "verified": verified if isinstance(verified, dict) else None,
        "steps": [],
        "errors": {},
        "missing": [],
    }
    if isinstance(explained, dict):
        reasons = dict.fromkeys(_REASONS.get(name, name) for name in explained["matched_by"])
        found |= {
            "scenario": explained["scenario"],
            "steps": [_step(step) for step in explained["steps"]],
            "reasons": list(reasons) or ["nothing else matches: it is the default"],
            "instead_of": chosen if chosen not in ("", explained["scenario"]) else "",
        }
        return found
    for name, message in explained:
        own = {"scenario_header": "_scenario", "metadata": "metadata:pairs"}.get(name.split(".")[0], name.split(".")[0])
        if any(values.get(own, ())):
            found["errors"][own] = message
        else:
            found["missing"].append(f"{name}: {message}")
    return found


async def _try(view: View, operation_id: str, body: Mapping[str, Any]) -> dict[str, Any] | list[tuple[str, str]]:
    """Call an operation that changes nothing. Return its response, or the errors in the body: field and message."""
    try:
        found: dict[str, Any] = await view.call(operation_id, body=body, shown=False, preview=True)
    except Refused as refused:
        if refused.status != 400:
            raise
        problem = refused.problem
        errors = problem.get("errors") or [{"field": "", "message": problem.get("detail", problem.get("title", ""))}]
        return [(error["field"], error["message"]) for error in errors]
    return found


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step with its time in words."""
    at = step["at"]
    when = "later" if at is None else f"after {in_words(at)}" if at else "immediately"
    return {**step, "when": when}
