"""Create, list and change a merchant's own scenarios, and explain what a payout would do."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from piccolo.query.methods.delete import Delete

from sandbox.domain.errors import Problem, invalid_fields
from sandbox.domain.failure_codes import FAILURES
from sandbox.domain.fields import one_of
from sandbox.domain.scenario_engine import HEADER, Facts, Scenario
from sandbox.domain.stored_scenario import stored_rule
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.body_errors import FieldProblem
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.payouts.directory.account_number import iban_of, scenario_suffix
from sandbox.payouts.directory.account_verification import REFUSALS
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.directory.destination import destination_errors
from sandbox.payouts.requests import new_payout
from sandbox.payouts.scenarios.examples import example_of, sale_payments
from sandbox.payouts.scenarios.explained import ExplainedStep, explained_steps
from sandbox.payouts.scenarios.rules import MAX_RULES, ExplainBody, RuleBody, check_rule, rule_errors
from sandbox.payouts.scenarios.tables import ScenarioRules
from sandbox.unit_of_work.runner import UnitOfWorkRunner

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_SQL: Final = read_statements(__name__)
_RULES: Final = _SQL["rules"]
_ORDER: Final = _SQL["order"]
_NOT_IN_EXAMPLES: Final = ("user_id", "metadata", "scenario_header")
"""Conditions that examples cannot meet by amount, destination and account."""


class ScenarioMatch(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The conditions of a scenario. A payout must meet all of them."""

    suffix: str | UnsetType = UNSET
    account_number: str | UnsetType = UNSET
    bank_code: str | UnsetType = UNSET
    wallet_code: str | UnsetType = UNSET
    amount_from: str | UnsetType = UNSET
    amount_to: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    scenario_header: str | UnsetType = UNSET


class ScenarioStep(msgspec.Struct):
    """One status change of a scenario, `after` seconds of the merchant's time from the previous one."""

    to: str
    after: float
    failure_code: str | None
    psp_reference: str | None
    probability: float
    wait: bool


class ScenarioRule(msgspec.Struct):
    """A scenario: one of the merchant's own rules, or a built-in scenario, which has no id and no position."""

    id: str | None
    name: str
    source: Annotated[str, one_of(("own", "builtin"))]
    match: ScenarioMatch
    steps: list[ScenarioStep]
    position: int | None


class Explanation(msgspec.Struct):
    """The scenario that a payout would follow, the conditions that chose it, and the expected changes.

    `rule_id` is null for a built-in scenario, and for the request's `rule`.
    """

    scenario: str
    source: Annotated[str, one_of(("own", "builtin"))]
    rule_id: str | None
    matched_by: list[str]
    steps: list[ExplainedStep]


class ExamplePayout(msgspec.Struct):
    """The fields of a payout that follows a scenario, so far as the scenario's conditions name them.

    `iban` is the same account as an IBAN; null in a wallet. `needs` are conditions that the other fields do not meet: of
    user_id, metadata and scenario_header.
    """

    amount: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str
    iban: str | None
    needs: list[str]


class CatalogueEntry(msgspec.Struct):
    """A scenario with a payout that follows it.

    `header` selects the scenario for any payout. `refusal` is why POST /verify-account finds the account not valid, or null.
    `sale_payments` says whether a user with this account receives advances and final payments: paid, failed or random.
    """

    scenario: ScenarioRule
    example: ExamplePayout
    steps: list[ExplainedStep]
    header: str
    refusal: str | None
    sale_payments: str


class FailureMeaning(msgspec.Struct):
    """A failure code, and what it means."""

    code: str
    meaning: str


class ScenarioCatalogue(msgspec.Struct):
    """All scenarios in the order in which they are tried, each with an example, and all failure codes."""

    scenarios: list[CatalogueEntry]
    failure_codes: list[FailureMeaning]


class ScenarioService:
    """The operations on scenarios."""

    def __init__(self, work: UnitOfWorkRunner, directory: Directory) -> None:
        self._work = work
        self._catalogue = work.catalogue
        self._directory = directory

    def check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in a rule that its schema cannot express."""
        return rule_errors(fields, self._directory)

    def check_payout(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in the payout and the rule of an explain request that its schema cannot express."""
        rule = rule_errors(fields.get("rule") or {}, self._directory)
        return [*destination_errors(fields, self._directory), *_of_draft(rule)]

    async def list_all(self, merchant_id: str) -> list[ScenarioRule]:
        """Return all scenarios in the order in which they are tried: own rules, by amount, by suffix, the default."""
        rules, default, review_threshold = await self._read(merchant_id)
        return [
            *(_render(rule, position) for position, rule in enumerate(rules, 1)),
            *(_render(scenario, None) for scenario in self._catalogue.applicable(default, review_threshold)),
        ]

    async def catalogue(self, merchant_id: str, bank_code: str) -> ScenarioCatalogue:
        """Return all scenarios with examples: accounts of the bank `bank_code`, unless a scenario needs another."""
        rules, default, review_threshold = await self._read(merchant_id)
        applicable = self._catalogue.applicable(default, review_threshold)
        entries = [self._entry(rule, bank_code, position) for position, rule in enumerate(rules, 1)]
        entries += [self._entry(scenario, bank_code, None) for scenario in applicable]
        return ScenarioCatalogue(entries, [FailureMeaning(code, meaning) for code, meaning in FAILURES.items()])

    def _entry(self, scenario: Scenario, bank_code: str, position: int | None) -> CatalogueEntry:
        example = example_of(scenario.match, bank_code)
        destination = self._directory.bank(example.bank_code) if example.bank_code else None
        return CatalogueEntry(
            scenario=_render(scenario, position),
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

    async def get(self, merchant_id: str, rule_id: str) -> ScenarioRule:
        """Return one of the merchant's own rules. Raises NOT_FOUND."""
        rules, _, _ = await self._read(merchant_id)
        index = _index(rules, rule_id)
        return _render(rules[index], index + 1)

    async def explain(self, context: RequestContext, body: ExplainBody) -> CommandResult:
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

    async def create(self, context: RequestContext, body: RuleBody) -> CommandResult:
        """Create a rule: 201 with it, or 409 if the name is taken or there are too many rules. Raises VALIDATION_ERROR."""
        match, steps = check_rule(body, self._directory)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            if len(unit.custom_scenarios) >= MAX_RULES:
                raise Problem("INVALID_STATE", f"You can have at most {MAX_RULES} scenarios of your own; delete one first.")
            self._require_free(unit.custom_scenarios, body.name)
            rule = stored_rule(unit.ids.next(), body.name, match, steps)
            position = await _write(conn, unit, rule, match, steps, len(unit.custom_scenarios), body.position)
            return CommandResult(201, msgspec.json.encode(_render(rule, position)), f"/sandbox/v1/scenarios/{rule.id}")

        return await self._work.run(context, action)

    async def replace(self, context: RequestContext, rule_id: str, body: RuleBody) -> CommandResult:
        """Replace a rule: 200 with it, or 404 or 409. Without a `position` in the body, the rule keeps its own.

        Payouts that already follow the rule keep their path. Raises VALIDATION_ERROR.
        """
        match, steps = check_rule(body, self._directory)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            index = _index(unit.custom_scenarios, rule_id)
            self._require_free([rule for rule in unit.custom_scenarios if rule.id != rule_id], body.name)
            rule = stored_rule(rule_id, body.name, match, steps)
            position = await _write(conn, unit, rule, match, steps, index, body.position)
            return CommandResult(200, msgspec.json.encode(_render(rule, position)))

        return await self._work.run(context, action)

    async def put(self, context: RequestContext, bodies: Sequence[RuleBody]) -> None:
        """Create rules. A rule whose name already exists replaces the existing one. Raises Problem if one is refused."""
        for body in bodies:
            rules, _, _ = await self._read(context.merchant_id)
            found = next((rule.id for rule in rules if rule.name == body.name), None)
            if found is None:
                result = await self.create(context, body)
            else:
                result = await self.replace(context, found, body)
            if result.status >= 400:
                raise Problem("INVALID_STATE", f"{body.name}: {msgspec.json.decode(result.body)['detail']}")

    async def delete(self, context: RequestContext, rule_id: str) -> CommandResult:
        """Delete a rule: 204, or 404. Payouts that already follow it keep their path."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            _index(unit.custom_scenarios, rule_id)  # raises NOT_FOUND
            remaining = [rule.id for rule in unit.custom_scenarios if rule.id != rule_id]
            await _delete(context.merchant_id, rule_id)
            await conn.execute(_ORDER, context.merchant_id, remaining)
            return CommandResult(204, b"")

        return await self._work.run(context, action)

    async def _read(self, merchant_id: str) -> tuple[list[Scenario], str, Decimal | None]:
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_RULES, merchant_id)
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
    conn: "PoolConnectionProxy[Any]",
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
    await conn.execute(_ORDER, unit.merchant_id, ids)
    return index + 1


def _render(scenario: Scenario, position: int | None) -> ScenarioRule:
    match = scenario.match
    fields = {name: getattr(match, name) for name in match.condition_names()}
    for name in fields.keys() & {"amount_from", "amount_to"}:
        fields[name] = str(fields[name])
    if match.metadata:
        fields["metadata"] = dict(match.metadata)
    return ScenarioRule(
        id=scenario.id,
        name=scenario.name,
        source="builtin" if scenario.id is None else "own",
        match=ScenarioMatch(**fields),
        steps=[
            ScenarioStep(s.to, s.after.total_seconds(), s.failure_code, s.psp_reference, s.probability, s.wait)
            for s in scenario.steps
        ],
        position=position,
    )
