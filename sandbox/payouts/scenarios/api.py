"""The operations on scenarios: `/sandbox/v1/scenarios`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import delete, either, get, parameter, post, put
from sandbox.http.paging import Page
from sandbox.http.request import Request
from sandbox.payouts.directory.destination import PSP_DESTINATIONS, PSP_PAYOUT
from sandbox.payouts.directory.loader import load_directory
from sandbox.payouts.scenarios.rules import ExplainBody, RuleBody
from sandbox.payouts.scenarios.service import Explanation, ScenarioCatalogue, ScenarioRule, ScenarioService

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


class ScenarioApi:
    """The operations on scenarios."""

    def __init__(self, scenarios: ScenarioService) -> None:
        self._scenarios = scenarios

    def _check(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return self._scenarios.check(fields)

    def _check_payout(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return self._scenarios.check_payout(fields)

    @get(
        "/sandbox/v1/scenarios",
        "List all scenarios; the first that matches wins",
        {200: list[ScenarioRule]},
        description="In the order in which they are tried: your own, then the built-in ones by amount and by suffix, then the "
        "default. The `X-Sandbox-Scenario` header of a create request selects one by name; an unknown name is refused.",
        psp="scenarios list",
    )
    async def list_scenarios(self, request: Request) -> Page:
        return Page(await self._scenarios.list_all(request.merchant_id), False, None)

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
    async def get_catalogue(self, request: Request) -> ScenarioCatalogue:
        return await self._scenarios.catalogue(request.merchant_id, request.query.get("bank_code", _DEFAULT_BANK))

    @get("/sandbox/v1/scenarios/{rule_id}", "Get a scenario of your own", {200: ScenarioRule}, psp="scenarios get")
    async def get_scenario(self, request: Request, rule_id: Uuid) -> ScenarioRule:
        return await self._scenarios.get(request.merchant_id, rule_id)

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
    async def create_scenario(self, request: Request, body: RuleBody) -> CommandResult:
        return await self._scenarios.create(request.context, body)

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
    async def replace_scenario(self, request: Request, body: RuleBody, rule_id: Uuid) -> CommandResult:
        return await self._scenarios.replace(request.context, rule_id, body)

    @delete("/sandbox/v1/scenarios/{rule_id}", "Delete a scenario of your own", {204: None}, psp="scenarios delete")
    async def delete_scenario(self, request: Request, rule_id: Uuid) -> CommandResult:
        return await self._scenarios.delete(request.context, rule_id)

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
    async def explain_scenario(self, request: Request, body: ExplainBody) -> CommandResult:
        return await self._scenarios.explain(request.context, body)
