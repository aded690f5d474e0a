"""The catalogue: which account number makes a payout do what, ready to copy."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.routing import Pages
from sandbox.server.console.texts import money
from sandbox.server.console.trace import in_words
from sandbox.server.console.view import View

pages = Pages()
_FAILURES: Final = (
    Column("code", "Failure code", "code"),
    Column("meaning", "Meaning"),
    Column("accounts", "Example accounts", "list"),
)
_PROBLEMS: Final = (
    Column("code", "Problem code", "code", link="/problems/{code}"),
    Column("status", "HTTP status"),
    Column("title", "Meaning"),
    Column("cure", "What to do", value=lambda row: row["cure"].replace("`", "")),
)
_CSV: Final = (
    Column("example.account_number", "Account number", "code"),
    Column("example.iban", "IBAN", "code"),
    Column("example.amount", "Amount", "money"),
    Column("scenario.name", "Scenario", "code"),
    Column("when", "When"),
    Column("path", "Path"),
    Column("codes", "Failure codes", "list"),
    Column("refusal", "verify-account refuses", "code"),
    Column("sale_payments", "Sales' payments"),
)
_WHEN: Final = {
    "suffix": "account ends in {}",
    "account_number": "account is {}",
    "bank_code": "bank is {}",
    "wallet_code": "wallet is {}",
    "amount_from": "amount is {} or more",
    "amount_to": "amount is {} or less",
    "user_id": "user is {}",
    "metadata": "metadata has {}",
    "scenario_header": "header X-Sandbox-Scenario is {}",
}
_DEFAULT_BANK: Final = "HBL"


@pages.page("/catalogue")
async def catalogue(view: View) -> Response:
    """List all scenarios with an account number for each, and all failure and problem codes."""
    found, directory, problems = await asyncio.gather(
        view.call("get_catalogue", query=view.given("bank_code")),
        view.call("get_directory", shown=False),
        view.call("problems"),
    )
    entries = [_entry(entry) for entry in found["scenarios"]]
    failures = [{**code, "accounts": _accounts(entries, code["code"])} for code in found["failure_codes"]]
    wanted = view.query.get("q", "").strip().lower()
    return await view.render(
        "catalogue.html",
        tables=[
            Table("catalogue", "Accounts", _CSV, entries),
            Table("failures", "Failure codes of payouts", _FAILURES, failures),
            Table("problems", "Problem codes of the API", _PROBLEMS, problems["data"]),
        ],
        entries=[entry for entry in entries if wanted in _text(entry)],
        count=len(entries),
        banks=[(bank["code"], f"{bank['code']} · {bank['name']}") for bank in directory["banks"]],
        bank=view.query.get("bank_code") or _DEFAULT_BANK,
    )


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scenario as the page shows it: its conditions and its path in words, and the link that creates a payout."""
    example, steps = entry["example"], entry["steps"]
    query = {
        name: example[name] for name in ("account_number", "amount", "bank_code", "wallet_code") if example[name] is not None
    }
    return {
        **entry,
        "when": _when(entry["scenario"]["match"]),
        "path": " → ".join(_step(step) for step in steps),
        "steps": [{**step, "in_words": in_words(step["after_seconds"]) if step["after_seconds"] else ""} for step in steps],
        "codes": list(dict.fromkeys(step["failure_code"] for step in steps if step["failure_code"])),
        "create": f"/payouts/new?{urlencode(query)}",
    }


def _when(match: Mapping[str, Any]) -> str:
    """Return a scenario's conditions in words."""
    words = []
    for name, value in match.items():
        if name.startswith("amount"):
            text = money(value)
        else:
            text = ", ".join(f"{key} = {item}" for key, item in value.items()) if name == "metadata" else str(value)
        words.append(_WHEN[name].format(text))
    return " and ".join(words) or "any other account"


def _step(step: Mapping[str, Any]) -> str:
    after = f"({in_words(step['after_seconds'])}) " if step["after_seconds"] else ""
    chance = f" {step['probability']:.0%}" if step["probability"] < 1 else ""
    return f"{after}{step['to']}{chance}{' waits' if step['wait'] else ''}"


def _accounts(entries: list[dict[str, Any]], code: str) -> list[str]:
    """Return the account numbers whose payouts get this failure code."""
    return [entry["example"]["account_number"] for entry in entries if code in entry["codes"]]


def _text(entry: Mapping[str, Any]) -> str:
    """Return the text that is searched, in lower case."""
    example = entry["example"]
    events = (step["event_type"] for step in entry["steps"])
    parts = [entry["scenario"]["name"], entry["scenario"]["source"], entry["when"], entry["path"], example["account_number"]]
    parts += [example["iban"] or "", entry["refusal"] or "", *entry["codes"], *events]
    return " ".join(parts).lower()
