"""`/sandbox/v1/scenarios`: parse, call the service, render."""

from typing import Final

import msgspec
from litestar import Router, delete, get, post, put
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import Operation
from sandbox.http.paging import Page, query
from sandbox.scenarios.rules import ExplainBody, RuleBody
from sandbox.scenarios.service import Explanation, ScenarioRule, ScenarioService

_EXAMPLE: Final = {
    "name": "flaky_bank",
    "match": {"bank_code": "HBL", "amount_to": "5000.00"},
    "steps": [
        {"to": "PROCESSING"},
        {"to": "RETRY", "probability": 0.5},
        {"to": "SUCCESS", "after": 3, "psp_reference": "BANK-REF-1"},
    ],
}
_SEE: Final = {
    "get": ("get_scenario", "rule_id"),
    "replace": ("replace_scenario", "rule_id"),
    "delete": ("delete_scenario", "rule_id"),
}
_PATHS: Final = (
    "A path starts from PENDING and must be legal even if steps with a `probability` are skipped. A final step that "
    "is taken ends the path, so `PROCESSING, FAILED (0.5), SUCCESS` fails half of the payouts. At most 100 scenarios "
    "of your own per merchant; the first that matches wins, before the built-in ones."
)
_LIST: Final = Operation(
    "List all scenarios; the first that matches wins", {200: list[ScenarioRule]},
    description="Your own come first, then the amount, the suffix and the default. The `X-Sandbox-Scenario` header of "
    "a create request selects one by name; an unknown name is refused.",
)  # fmt: skip
_CREATE: Final = Operation(
    "Create a scenario of your own", {201: ScenarioRule}, RuleBody, errors=("INVALID_STATE",), idempotency="optional",
    links=_SEE, example=_EXAMPLE, description=_PATHS,
)  # fmt: skip
_REPLACE: Final = Operation(
    "Replace a scenario of your own", {200: ScenarioRule}, RuleBody, errors=("NOT_FOUND", "INVALID_STATE"),
    idempotency="optional", example=_EXAMPLE,
    description=_PATHS + " Payouts that already follow it keep their path.",
)  # fmt: skip
_EXPLAIN: Final = Operation(
    "Explain what a payout would do, without creating it", {200: Explanation}, ExplainBody, idempotency="optional",
    example={
        "merchant_reference": "INV-1001", "amount": "1500.00", "dest_type": "BANK", "bank_code": "HBL",
        "account_number": "12345678900012", "scenario_header": "returned",
    },
)  # fmt: skip


def scenarios_router(gate: RequestGuard, service: ScenarioService) -> Router:
    """The routes of scenarios."""
    rule_body = msgspec.json.Decoder(RuleBody)
    explain_body = msgspec.json.Decoder(ExplainBody)

    @get("/", operation_id="list_scenarios", opt={"operation": _LIST})
    async def list_scenarios(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(Page(await service.list_all(caller.merchant_id), False, None))

    @get(
        "/{rule_id:str}", operation_id="get_scenario",
        opt={"operation": Operation("Get a scenario of your own", {200: ScenarioRule}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_scenario(request: HttpRequest, rule_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id, rule_id))

    @post("/", operation_id="create_scenario", opt={"operation": _CREATE})
    async def create_scenario(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, rule_body, key_required=False, check=service.check)
        return answered(await service.create(gate.context(request, key), parsed))

    @put("/{rule_id:str}", operation_id="replace_scenario", opt={"operation": _REPLACE})
    async def replace_scenario(request: HttpRequest, rule_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, rule_body, key_required=False, check=service.check)
        return answered(await service.replace(gate.context(request, key), rule_id, parsed))

    @delete(
        "/{rule_id:str}", operation_id="delete_scenario", status_code=200,
        opt={"operation": Operation("Delete a scenario of your own", {204: None}, errors=("NOT_FOUND",),
             idempotency="optional")},
    )  # fmt: skip
    async def delete_scenario(request: HttpRequest, rule_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        key = await gate.optional_key(request)
        return answered(await service.delete(gate.context(request, key), rule_id))

    @post("/explain", operation_id="explain_scenario", opt={"operation": _EXPLAIN}, status_code=200)
    async def explain_scenario(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, explain_body, key_required=False, check=service.check_payout)
        return answered(await service.explain(gate.context(request, key), parsed))

    return Router(
        "/sandbox/v1/scenarios",
        route_handlers=[
            list_scenarios, get_scenario, create_scenario, replace_scenario, delete_scenario, explain_scenario,
        ],
    )  # fmt: skip
