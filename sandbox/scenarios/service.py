"""A merchant's own scenarios: write them, list all that apply, and explain what a payout would do."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from piccolo.query.methods.delete import Delete

from sandbox.db.engine import connection, db_errors_as_503
from sandbox.domain.body_errors import Fault
from sandbox.domain.directory import Directory
from sandbox.domain.errors import Problem
from sandbox.domain.ids import is_uuid
from sandbox.domain.payout_states import EVENT_OF, PENDING, REQUESTED, TRANSITIONS
from sandbox.domain.scenario_engine import Facts, Scenario, goes_on
from sandbox.domain.stored_scenario import stored_rule
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.payouts.requests import destination_faults, new_payout
from sandbox.scenarios.rules import LARGEST_COUNT, ExplainBody, RuleBody, check_rule, rule_faults
from sandbox.scenarios.tables import ScenarioRules
from sandbox.unit_of_work.runner import UnitsOfWork

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_RULES: Final = """
SELECT w.default_scenario, w.review_threshold, ARRAY(
    SELECT ROW (id::text, name, match::text, steps::text) FROM scenario_rules WHERE merchant_id = $1 ORDER BY position
) AS rules
FROM worlds w WHERE w.merchant_id = $1
"""
_ORDER: Final = """
UPDATE scenario_rules r SET position = n.position
FROM unnest($2::uuid[]) WITH ORDINALITY AS n (id, position)
WHERE r.merchant_id = $1 AND r.id = n.id AND r.position <> n.position
"""


class ScenarioMatch(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The conditions of a scenario. All that are present must hold."""

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
    """One change of a scenario; `after` is in seconds from the previous change, in the merchant's time."""

    to: str
    after: float
    failure_code: str | None
    psp_reference: str | None
    probability: float
    wait: bool


class ScenarioRule(msgspec.Struct):
    """A scenario: a merchant's own rule, or a built-in one, which has no id and no position."""

    id: str | None
    name: str
    source: str
    match: ScenarioMatch
    steps: list[ScenarioStep]
    position: int | None


class ExplainedStep(msgspec.Struct):
    """One expected change: `after_seconds` from the previous one, `at` from the creation (null: uncertain).

    `probability` is the chance that a payout that reaches the step takes it; `overall_probability` is the chance of both.
    """

    step: int | None
    to: str
    after_seconds: float
    at: float | None
    failure_code: str | None
    event_type: str
    money: str | None
    probability: float
    overall_probability: float
    wait: bool


class Explanation(msgspec.Struct):
    """Which scenario a payout would follow, what chose it, and what would happen."""

    scenario: str
    source: str
    rule_id: str | None
    matched_by: list[str]
    steps: list[ExplainedStep]


class ScenarioService:
    """What the API offers of scenarios."""

    def __init__(self, work: UnitsOfWork, directory: Directory) -> None:
        self._work = work
        self._catalogue = work.catalogue
        self._directory = directory

    def check(self, members: Mapping[str, Any]) -> list[Fault]:
        """What the type cannot say of a rule."""
        return rule_faults(members, self._directory)

    def check_payout(self, members: Mapping[str, Any]) -> list[Fault]:
        """What the type cannot say of a payout to be explained."""
        return destination_faults(members, self._directory)

    async def list_all(self, merchant_id: str) -> list[ScenarioRule]:
        """All that apply, in their order: own rules, by amount, by suffix, and the default."""
        rules, default, review_threshold = await self._read(merchant_id)
        return [
            *(_shown(rule, place) for place, rule in enumerate(rules, 1)),
            *(_shown(scenario, None) for scenario in self._catalogue.applying(default, review_threshold)),
        ]

    async def get(self, merchant_id: str, rule_id: str) -> ScenarioRule:
        """One own rule. Raises NOT_FOUND."""
        rules, _, _ = await self._read(merchant_id)
        return _shown(rules[_place(rules, rule_id)], _place(rules, rule_id) + 1)

    async def explain(self, context: RequestContext, body: ExplainBody) -> CommandResult:
        """What a payout would do: 200 with an Explanation. Raises VALIDATION_ERROR for a body that would create none."""
        return await self._work.run_repeatable(context, lambda: self._explain(context.merchant_id, body))

    async def _explain(self, merchant_id: str, body: ExplainBody) -> CommandResult:
        new = new_payout(body, self._directory)
        header = None if body.scenario_header is UNSET else body.scenario_header
        user_id = None if body.user_id is UNSET else body.user_id
        facts = Facts(new.amount, new.account_number, new.bank_code, new.wallet_code, user_id, new.metadata, header)
        rules, default, review_threshold = await self._read(merchant_id)
        self._catalogue.check_header(header, rules, "scenario_header")
        choice = self._catalogue.choose(facts, rules, default, review_threshold)
        explanation = Explanation(
            scenario=choice.scenario.name,
            source="builtin" if choice.scenario.id is None else "own",
            rule_id=choice.scenario.id,
            matched_by=list(choice.matched_by),
            steps=told_steps(choice.scenario, new.requires_approval),
        )
        return CommandResult(200, msgspec.json.encode(explanation))

    async def create(self, context: RequestContext, body: RuleBody) -> CommandResult:
        """Make a rule: 201 with it. Raises VALIDATION_ERROR; a name that is taken and one rule too many are conflicts."""
        match, steps = check_rule(body, self._directory)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            if len(unit.rules) >= LARGEST_COUNT:
                raise Problem("INVALID_STATE", f"A merchant has at most {LARGEST_COUNT} own scenarios; delete one first.")
            self._require_free(unit.rules, body.name)
            rule = stored_rule(unit.ids.next(), body.name, match, steps)
            place = await _write(conn, unit, rule, match, steps, len(unit.rules), body.position)
            return CommandResult(201, msgspec.json.encode(_shown(rule, place)), f"/sandbox/v1/scenarios/{rule.id}")

        return await self._work.run(context, action)

    async def replace(self, context: RequestContext, rule_id: str, body: RuleBody) -> CommandResult:
        """Replace a rule: 200 with it. Payouts that already follow it keep their path. Without a position it stays."""
        match, steps = check_rule(body, self._directory)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            old = _place(unit.rules, rule_id)
            self._require_free([rule for rule in unit.rules if rule.id != rule_id], body.name)
            rule = stored_rule(rule_id, body.name, match, steps)
            place = await _write(conn, unit, rule, match, steps, old, body.position)
            return CommandResult(200, msgspec.json.encode(_shown(rule, place)))

        return await self._work.run(context, action)

    async def put(self, context: RequestContext, bodies: Sequence[RuleBody]) -> None:
        """Make rules, each in the place of the one that has its name. Raises Problem if one is refused."""
        for body in bodies:
            rules, _, _ = await self._read(context.merchant_id)
            found = next((rule.id for rule in rules if rule.name == body.name), None)
            if found is None:
                answer = await self.create(context, body)
            else:
                answer = await self.replace(context, found, body)
            if answer.status >= 400:
                raise Problem("INVALID_STATE", f"{body.name}: {msgspec.json.decode(answer.body)['detail']}")

    async def delete(self, context: RequestContext, rule_id: str) -> CommandResult:
        """Delete a rule: 204. Payouts that already follow it keep their path."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            gone = _place(unit.rules, rule_id)
            left = [rule.id for place, rule in enumerate(unit.rules) if place != gone]
            await _delete(context.merchant_id, rule_id)
            await conn.execute(_ORDER, context.merchant_id, left)
            return CommandResult(204, b"")

        return await self._work.run(context, action)

    async def _read(self, merchant_id: str) -> tuple[list[Scenario], str, Decimal | None]:
        async with db_errors_as_503(), connection() as conn:
            record = await conn.fetchrow(_RULES, merchant_id)
        if record is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        rules = [stored_rule(*rule) for rule in record["rules"]]
        return rules, record["default_scenario"], record["review_threshold"]

    def _require_free(self, others: Sequence[Scenario], name: str) -> None:
        if self._catalogue.knows(name):
            raise Problem("INVALID_STATE", f"{name} is a built-in scenario; choose another name.")
        if any(rule.name == name for rule in others):
            raise Problem(
                "INVALID_STATE", f"You already have a scenario named {name}; change that one, or choose another name."
            )


def _delete(merchant_id: str, rule_id: str) -> Delete:
    return ScenarioRules.delete().where(ScenarioRules.merchant_id == merchant_id, ScenarioRules.id == rule_id)


def _place(rules: Sequence[Scenario], rule_id: str) -> int:
    if is_uuid(rule_id):
        for place, rule in enumerate(rules):
            if rule.id == rule_id:
                return place
    raise Problem("NOT_FOUND", "You have no such scenario; GET /sandbox/v1/scenarios lists them.")


async def _write(
    conn: "PoolConnectionProxy[Any]",
    unit: UnitOfWork,
    rule: Scenario,
    match: str,
    steps: str,
    place: int,
    wanted: float | UnsetType,
) -> int:
    """Write a rule and the order of all; gives its position, from 1. `place` is where it stands if none is wanted."""
    ids = [other.id for other in unit.rules if other.id != rule.id]
    place = place if wanted is UNSET else min(int(wanted) - 1, len(ids))
    ids.insert(place, rule.id)
    r = ScenarioRules
    row = r(merchant_id=unit.merchant_id, id=rule.id, name=rule.name, position=place + 1, match=match, steps=steps)
    await r.insert(row).on_conflict(target=(r.merchant_id, r.id), action="DO UPDATE", values=[r.name, r.match, r.steps])
    await conn.execute(_ORDER, unit.merchant_id, ids)
    return place + 1


def _shown(scenario: Scenario, position: int | None) -> ScenarioRule:
    match = scenario.match
    members = {name: getattr(match, name) for name in match.members()}
    for name in members.keys() & {"amount_from", "amount_to"}:
        members[name] = str(members[name])
    if match.metadata:
        members["metadata"] = dict(match.metadata)
    return ScenarioRule(
        id=scenario.id,
        name=scenario.name,
        source="builtin" if scenario.id is None else "own",
        match=ScenarioMatch(**members),
        steps=[
            ScenarioStep(s.to, s.after.total_seconds(), s.failure_code, s.psp_reference, s.probability, s.wait)
            for s in scenario.steps
        ],
        position=position,
    )


def told_steps(scenario: Scenario, requires_approval: bool) -> list[ExplainedStep]:
    """The changes that a payout of a scenario would go through, its creation first."""
    first = REQUESTED if requires_approval else PENDING
    told = [_change(None, None, first, 0.0, 0.0)]
    at: timedelta | None = timedelta(0)
    if requires_approval:
        told.append(_change(None, first, PENDING, 0.0, None))
        at = None
    # Where payouts stand before a step: a state → the share of them, and when they came there (None: that is not sure).
    places: dict[str, tuple[float, timedelta | None]] = {PENDING: (1.0, at)}
    for number, step in enumerate(scenario.steps):
        going = {state: place for state, place in places.items() if goes_on(state, step.to) and place[0] > 0}
        times = {came for _, came in going.values()}
        came = times.pop() if len(times) == 1 else None
        at = None if came is None else came + step.after
        source = next((state for state in going if (state, step.to) in TRANSITIONS), None)
        told.append(_change(number, source, step.to, step.after.total_seconds(), None if at is None else at.total_seconds()))
        told[-1].failure_code = step.failure_code
        told[-1].probability = step.probability
        told[-1].overall_probability = round(sum(share for share, _ in going.values()) * step.probability, 6)
        told[-1].wait = step.wait
        for state, (share, since) in going.items():
            places[state] = share * (1 - step.probability), since
        share, since = places.get(step.to, (0.0, at))
        at = None if step.wait or (share > 0 and since != at) else at
        places[step.to] = share + told[-1].overall_probability, at
    return told


def _change(number: int | None, source: str | None, target: str, after: float, at: float | None) -> ExplainedStep:
    # A step that may be left out before this one may make its source another, but not what it moves.
    change = TRANSITIONS.get((source, target))
    movement = None if change is None else change.movement
    return ExplainedStep(
        step=number,
        to=target,
        after_seconds=after,
        at=at,
        failure_code=None,
        event_type=EVENT_OF[target],
        money=None if movement is None else f"{movement.debit.lower()} → {movement.credit.lower()}",
        probability=1.0,
        overall_probability=1.0,
        wait=False,
    )
