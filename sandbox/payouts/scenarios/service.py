"""Create, list and change a merchant's own scenarios, and explain what a payout would do."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from piccolo.query.methods.delete import Delete

from sandbox.domain.errors import Problem, invalid_fields
from sandbox.domain.failure_codes import FAILURES
from sandbox.domain.fields import Uuid
from sandbox.domain.scenario_engine import HEADER, Facts, Scenario
from sandbox.domain.stored_scenario import stored_rule
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import delete, either, get, parameter, post, put
from sandbox.http.paging import Page
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.payouts.directory.account_number import iban_of, scenario_suffix
from sandbox.payouts.directory.account_verification import REFUSALS
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.directory.destination import PSP_DESTINATIONS, PSP_PAYOUT, destination_errors
from sandbox.payouts.directory.loader import load_directory
from sandbox.payouts.requests import new_payout
from sandbox.payouts.scenarios.examples import example_of, sale_payments
from sandbox.payouts.scenarios.explained import explained_steps
from sandbox.payouts.scenarios.rules import MAX_RULES, ExplainBody, RuleBody, check_rule, rule_errors
from sandbox.payouts.scenarios.tables import ScenarioRules
from sandbox.payouts.scenarios.views import (
    CatalogueEntry,
    ExamplePayout,
    Explanation,
    FailureMeaning,
    ScenarioCatalogue,
    ScenarioRule,
    shown_rule,
)
from sandbox.unit_of_work.runner import UnitOfWorkRunner

_SQL: Final = read_statements(__name__)
_NOT_IN_EXAMPLES: Final = ("user_id", "metadata", "scenario_header")
"""Conditions that examples cannot meet by amount, destination and account."""


_EXAMPLE: Final = {
    "name": "flaky_bank",
    "match": {"bank_code": "HBL", "amount_to": "5000.00"},
    "steps": [
        {"to": "PROCESSING"},
        {"to": "RETRY", "probability": 0.5},
        {"to": "SUCCESS", "after": 3, "psp_reference": "BANK-REF-1"},
    ],
}
_DEFAULT_BANK: Final = "HBL"
_LINKS: Final = {
    "get": ("get_scenario", "rule_id"),
    "replace": ("replace_scenario", "rule_id"),
    "delete": ("delete_scenario", "rule_id"),
}
_PATHS: Final = (
    "A path starts from PENDING. It must be legal even if steps with a `probability` are skipped. A step to FAILED, "
    "CANCELLED or RETURNED ends the path, so `PROCESSING, FAILED (0.5), SUCCESS` fails half of the payouts. A merchant can "
    "have at most 100 scenarios. They are tried in order, before the built-in ones; the first that matches wins."
)


class ScenarioService:
    """The operations on scenarios."""

    def __init__(self, work: UnitOfWorkRunner, directory: Directory) -> None:
        self._work = work
        self._catalogue = work.catalogue
        self._directory = directory

    def _check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in a rule that its schema cannot express."""
        return rule_errors(fields, self._directory)

    def _check_payout(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in the payout and the rule of an explain request that its schema cannot express."""
        rule = rule_errors(fields.get("rule") or {}, self._directory)
        return [*destination_errors(fields, self._directory), *_of_draft(rule)]

    @get(
        "/sandbox/v1/scenarios",
        "List all scenarios; the first that matches wins",
        {200: list[ScenarioRule]},
        description="In the order in which they are tried: your own, then the built-in ones by amount and by suffix, then the "
        "default. The `X-Sandbox-Scenario` header of a create request selects one by name; an unknown name is refused.",
        psp="scenarios list",
    )
    async def list_scenarios(self, merchant_id: str) -> Page:
        """Return all scenarios in the order in which they are tried: own rules, by amount, by suffix, the default."""
        rules, default, review_threshold = await self._read(merchant_id)
        found = [shown_rule(rule, position) for position, rule in enumerate(rules, 1)]
        found += [shown_rule(scenario, None) for scenario in self._catalogue.applicable(default, review_threshold)]
        return Page(found, False, None)

    @get(
        "/sandbox/v1/catalogue",
        "List all scenarios with an example of each, and all failure codes",
        {200: ScenarioCatalogue},
        query=(
            parameter(
                "bank_code",
                "Examples are accounts of this bank; HBL by default.",
                type="string",
                enum=load_directory().bank_codes(),
            ),
        ),
        description="For each scenario: an amount and an account number to copy, the changes with their times, events and "
        "money, and what else the account number decides: whether POST /verify-account accepts it, and whether sales are paid.",
        psp="scenarios catalogue --bank {bank_code}",
    )
    async def get_catalogue(self, merchant_id: str, query: Mapping[str, str]) -> ScenarioCatalogue:
        """Return all scenarios with examples: accounts of the bank `bank_code`, unless a scenario needs another."""
        bank_code = query.get("bank_code", _DEFAULT_BANK)
        rules, default, review_threshold = await self._read(merchant_id)
        applicable = self._catalogue.applicable(default, review_threshold)
        entries = [self._entry(rule, bank_code, position) for position, rule in enumerate(rules, 1)]
        entries += [self._entry(scenario, bank_code, None) for scenario in applicable]
        return ScenarioCatalogue(entries, [FailureMeaning(code, meaning) for code, meaning in FAILURES.items()])

    def _entry(self, scenario: Scenario, bank_code: str, position: int | None) -> CatalogueEntry:
        example = example_of(scenario.match, bank_code)
        destination = self._directory.bank(example.bank_code) if example.bank_code else None
        return CatalogueEntry(
            scenario=shown_rule(scenario, position),
            example=ExamplePayout(
                amount=str(example.amount),
                bank_code=example.bank_code,
                wallet_code=example.wallet_code,
                account_number=example.account_number,
                iban=None if destination is None else iban_of(destination.iban_code, example.account_number),
                needs=[name for name in scenario.match.condition_names() if name in _NOT_IN_EXAMPLES],
            ),
            steps=explained_steps(scenario, requires_approval=False),
            header=f"{HEADER}: {scenario.name}",
            refusal=REFUSALS.get(scenario_suffix(example.account_number)),
            sale_payments=sale_payments(scenario, example),
        )

    @get("/sandbox/v1/scenarios/{rule_id}", "Get a scenario of your own", {200: ScenarioRule}, psp="scenarios get")
    async def get_scenario(self, merchant_id: str, rule_id: Uuid) -> ScenarioRule:
        """Return one of the merchant's own rules. Raises NOT_FOUND."""
        rules, _, _ = await self._read(merchant_id)
        index = _index(rules, rule_id)
        return shown_rule(rules[index], index + 1)

    @post(
        "/sandbox/v1/scenarios/explain",
        "Explain what a payout would do, without creating it",
        {200: Explanation},
        ExplainBody,
        check=_check_payout,
        example={
            "merchant_reference": "INV-1001",
            "amount": "1500.00",
            "dest_type": "BANK",
            "bank_code": "HBL",
            "account_number": "12345678900012",
            "scenario_header": "returned",
        },
        psp=either(
            "scenarios explain {amount} {account_number}",
            *PSP_DESTINATIONS,
            rest=f"{PSP_PAYOUT} --scenario {{scenario_header}} --rule {{rule:file=scenario.json}}",
        ),
    )
    async def explain_scenario(self, context: RequestContext, body: ExplainBody) -> CommandResult:
        """Explain what a payout would do: 200 with an Explanation. Raises VALIDATION_ERROR if the payout is invalid."""
        return await self._work.run_idempotent(context, lambda: self._explain(context.merchant_id, body))

    async def _explain(self, merchant_id: str, body: ExplainBody) -> CommandResult:
        new = new_payout(body, self._directory)
        header = None if body.scenario_header is UNSET else body.scenario_header
        user_id = None if body.user_id is UNSET else body.user_id
        facts = Facts(new.amount, new.account_number, new.bank_code, new.wallet_code, user_id, new.metadata, header)
        rules, default, review_threshold = await self._read(merchant_id)
        if body.rule is not UNSET:
            rules = _with_draft(rules, self._draft(body.rule), body.rule.position)
        self._catalogue.check_header(header, rules, "scenario_header")
        choice = self._catalogue.choose(facts, rules, default, review_threshold)
        explanation = Explanation(
            scenario=choice.scenario.name,
            source="builtin" if choice.scenario.id is None else "own",
            rule_id=choice.scenario.id or None,
            matched_by=list(choice.matched_by),
            steps=explained_steps(choice.scenario, new.requires_approval),
        )
        return CommandResult(200, msgspec.json.encode(explanation))

    def _draft(self, body: RuleBody) -> Scenario:
        """Return a rule that is not stored: its id is empty. Raises VALIDATION_ERROR."""
        try:
            return stored_rule("", body.name, *check_rule(body, self._directory))
        except Problem as problem:
            raise invalid_fields(_of_draft(problem.errors)) from None

    @post(
        "/sandbox/v1/scenarios",
        "Create a scenario of your own",
        {201: ScenarioRule},
        RuleBody,
        errors=("INVALID_STATE",),
        links=_LINKS,
        example=_EXAMPLE,
        check=_check,
        description=_PATHS,
        psp="scenarios add {*:file=scenario.json}",
    )
    async def create_scenario(self, context: RequestContext, body: RuleBody) -> CommandResult:
        """Create a rule: 201 with it, or 409 if the name is taken or there are too many rules. Raises VALIDATION_ERROR."""
        match, steps = check_rule(body, self._directory)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            if len(unit.custom_scenarios) >= MAX_RULES:
                raise Problem("INVALID_STATE", f"You can have at most {MAX_RULES} scenarios of your own; delete one first.")
            self._require_free(unit.custom_scenarios, body.name)
            rule = stored_rule(unit.ids.next(), body.name, match, steps)
            position = await _write(conn, unit, rule, match, steps, len(unit.custom_scenarios), body.position)
            return CommandResult(201, msgspec.json.encode(shown_rule(rule, position)), f"/sandbox/v1/scenarios/{rule.id}")

        return await self._work.run(context, action)

    @put(
        "/sandbox/v1/scenarios/{rule_id}",
        "Replace a scenario of your own",
        {200: ScenarioRule},
        RuleBody,
        errors=("INVALID_STATE",),
        example=_EXAMPLE,
        check=_check,
        description=_PATHS + " Payouts that already follow it keep their path.",
        psp="scenarios replace {rule_id} {*:file=scenario.json}",
    )
    async def replace_scenario(self, context: RequestContext, rule_id: Uuid, body: RuleBody) -> CommandResult:
        """Replace a rule: 200 with it, or 404 or 409. Without a `position` in the body, the rule keeps its own.

        Payouts that already follow the rule keep their path. Raises VALIDATION_ERROR.
        """
        match, steps = check_rule(body, self._directory)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            index = _index(unit.custom_scenarios, rule_id)
            self._require_free([rule for rule in unit.custom_scenarios if rule.id != rule_id], body.name)
            rule = stored_rule(rule_id, body.name, match, steps)
            position = await _write(conn, unit, rule, match, steps, index, body.position)
            return CommandResult(200, msgspec.json.encode(shown_rule(rule, position)))

        return await self._work.run(context, action)

    async def put(self, context: RequestContext, bodies: Sequence[RuleBody]) -> None:
        """Create rules. A rule whose name already exists replaces the existing one. Raises Problem if one is refused."""
        for body in bodies:
            rules, _, _ = await self._read(context.merchant_id)
            found = next((rule.id for rule in rules if rule.name == body.name), None)
            if found is None:
                result = await self.create_scenario(context, body)
            else:
                result = await self.replace_scenario(context, found, body)
            if result.status >= 400:
                raise Problem("INVALID_STATE", f"{body.name}: {msgspec.json.decode(result.body)['detail']}")

    @delete("/sandbox/v1/scenarios/{rule_id}", "Delete a scenario of your own", {204: None}, psp="scenarios delete")
    async def delete_scenario(self, context: RequestContext, rule_id: Uuid) -> CommandResult:
        """Delete a rule: 204, or 404. Payouts that already follow it keep their path."""

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            _index(unit.custom_scenarios, rule_id)  # raises NOT_FOUND
            remaining = [rule.id for rule in unit.custom_scenarios if rule.id != rule_id]
            await _delete(context.merchant_id, rule_id)
            await conn.execute(_SQL["order"], context.merchant_id, remaining)
            return CommandResult(204, b"")

        return await self._work.run(context, action)

    async def _read(self, merchant_id: str) -> tuple[list[Scenario], str, Decimal | None]:
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["rules"], merchant_id)
        if record is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        rules = [stored_rule(*msgspec.json.decode(rule)) for rule in record["rules"]]
        return rules, record["default_scenario"], record["review_threshold"]

    def _require_free(self, others: Sequence[Scenario], name: str) -> None:
        if self._catalogue.contains(name):
            raise Problem("INVALID_STATE", f"{name} is a built-in scenario; choose another name.")
        if any(rule.name == name for rule in others):
            raise Problem(
                "INVALID_STATE", f"You already have a scenario named {name}; replace that one, or choose another name."
            )


def _of_draft(errors: Sequence[FieldProblem]) -> list[FieldProblem]:
    return [(f"rule.{field}", message) for field, message in errors]


def _with_draft(rules: Sequence[Scenario], draft: Scenario, position: float | UnsetType) -> list[Scenario]:
    """Return the rules as they would be with this one. It takes the place of the rule of its name, if there is one."""
    others = [rule for rule in rules if rule.name != draft.name]
    index = next((index for index, rule in enumerate(rules) if rule.name == draft.name), len(others))
    others.insert(index if position is UNSET else int(position) - 1, draft)
    return others


def _delete(merchant_id: str, rule_id: str) -> Delete:
    return ScenarioRules.delete().where(ScenarioRules.merchant_id == merchant_id, ScenarioRules.id == rule_id)


def _index(rules: Sequence[Scenario], rule_id: str) -> int:
    """Return the index of a rule. Raises NOT_FOUND."""
    for index, rule in enumerate(rules):
        if rule.id == rule_id:
            return index
    raise Problem(
        "NOT_FOUND", "Scenario not found; GET /sandbox/v1/scenarios lists yours with their ids (built-in ones have none)."
    )


async def _write(
    conn: Connection,
    unit: UnitOfWork,
    rule: Scenario,
    match: str,
    steps: str,
    index: int,
    position: float | UnsetType,
) -> int:
    """Write a rule and the new order of all rules. Return its position, from 1.

    The rule goes to `position`, or to the end if that is beyond it; if it is unset, to `index`.
    """
    ids = [other.id for other in unit.custom_scenarios if other.id != rule.id]
    index = index if position is UNSET else min(int(position) - 1, len(ids))
    ids.insert(index, rule.id)
    r = ScenarioRules
    row = r(merchant_id=unit.merchant_id, id=rule.id, name=rule.name, position=index + 1, match=match, steps=steps)
    await r.insert(row).on_conflict(target=(r.merchant_id, r.id), action="DO UPDATE", values=[r.name, r.match, r.steps])
    await conn.execute(_SQL["order"], unit.merchant_id, ids)
    return index + 1
