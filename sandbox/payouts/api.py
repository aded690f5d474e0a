"""The operations on payouts: `/api/v1/payouts`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from sandbox.domain.enumerations import DestType
from sandbox.domain.fields import EmptyBody, Uuid, results_of
from sandbox.domain.payout import Payout
from sandbox.domain.payout_commands import DECISIONS
from sandbox.domain.payout_states import STATUSES
from sandbox.domain.scenario_engine import HEADER
from sandbox.domain.unit import CommandResult
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import DATED_PAGE, Operation, either, get, list_of_choices, parameter, post
from sandbox.http.paging import MAX_SCANNED, Page, selected, window
from sandbox.http.request import Request
from sandbox.payouts.directory.destination import PSP_DESTINATIONS, PSP_PAYOUT
from sandbox.payouts.requests import MAX_BATCH_SIZE, CreatePayoutBody, CreatePayoutsBody
from sandbox.payouts.service import PayoutService, Timeline

EXAMPLE: Final = {
    "merchant_reference": "INV-1001",
    "amount": "1500.00",
    "dest_type": "BANK",
    "bank_code": "HBL",
    "account_number": "12345678900001",
    "account_title": "AYESHA KHAN",
}
DEST_TYPES: Final = get_args(DestType)
MAX_WAIT_SECONDS: Final = 30
DEFAULT_WAIT: Final = 10
"""How long to wait for a status in seconds, if the request has no `timeout`."""
_LINKS: Final = {
    "get": ("get_payout", "payout_id"),
    "timeline": ("get_payout_timeline", "payout_id"),
    "cancel": ("cancel_payout", "payout_id"),
    "approve": ("approve_payout", "payout_id"),
    "reject": ("reject_payout", "payout_id"),
    "reinitiate": ("reinitiate_payout", "payout_id"),
}


class CreatedPayout(msgspec.Struct):
    """The result of a batch item that was created."""

    status: Literal[201]
    payout: Payout


class PayoutResults(msgspec.Struct):
    """The result of each item of a batch, in order."""

    results: Annotated[list[CreatedPayout], results_of("CreatedPayout", MAX_BATCH_SIZE)]


_SCENARIO: Final = HEADER.lower()


def _transition_operation(method: str, action: str, summary: str, *errors: str) -> Operation:
    return Operation(
        method, f"/api/v1/payouts/{{payout_id}}/{action}", summary, {200: Payout}, EmptyBody, psp=f"payouts {action}",
        errors=("INVALID_STATE", *errors),
        access="admin" if action in DECISIONS else "member",
    )  # fmt: skip


class PayoutApi:
    """The operations on payouts."""

    def __init__(self, payouts: PayoutService) -> None:
        self._payouts = payouts

    def _check(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return self._payouts.check(fields)

    @post(
        "/api/v1/payouts",
        "Create a payout",
        {201: Payout},
        CreatePayoutBody,
        errors=("DUPLICATE_REFERENCE", "INSUFFICIENT_BALANCE"),
        example=EXAMPLE,
        links=_LINKS,
        check=_check,
        description="The last four digits of the account number choose the scenario, unless an `X-Sandbox-Scenario` header "
        "names one. See the list of scenarios.",
        psp=either(
            "payouts create {amount} {account_number}",
            *PSP_DESTINATIONS,
            rest=PSP_PAYOUT + " --scenario {scenario}",
        ),
    )
    async def create_payout(self, request: Request, body: CreatePayoutBody) -> CommandResult:
        return await self._payouts.create(request.context, body, request.header(_SCENARIO))

    @post(
        "/api/v1/payouts/batch",
        "Create up to 1000 payouts, each independently",
        {200: PayoutResults},
        CreatePayoutsBody,
        example={"payouts": [EXAMPLE]},
        description="Results are in the order of the items. An invalid item is reported in its result and does not stop "
        "the others. The whole request is refused only if it is not valid JSON or not a list of 1 to 1000 items. "
        "The body is limited to 2 MiB.",
        psp="payouts batch {payouts:file=payouts.csv} --scenario {scenario}",
    )
    async def create_payouts(self, request: Request, body: CreatePayoutsBody) -> CommandResult:
        return await self._payouts.create_many(request.context, body, request.header(_SCENARIO))

    @get(
        "/api/v1/payouts",
        "List payouts, newest first",
        {200: list[Payout]},
        query=(
            *DATED_PAGE,
            parameter("status", "Only payouts with one of these statuses.", **list_of_choices(STATUSES)),
            parameter(
                "metadata",
                "Only payouts with this pair in their metadata: `metadata[order]=17`.",
                type="object",
                propertyNames={"type": "string", "minLength": 1, "maxLength": 64},
                additionalProperties={"type": "string", "maxLength": 500},
                maxProperties=20,
            ),
            parameter("dest_type", "Only payouts to this type of destination.", type="string", enum=list(DEST_TYPES)),
            parameter("merchant_reference", "Only the payout with this reference.", type="string", minLength=1, maxLength=64),
            parameter("user_id", "Only payouts of this user.", type="string", format="uuid"),
            parameter(
                "q",
                "Only payouts that this text finds. First those that it identifies, however old they are: by merchant "
                "reference, by the beginning of the id, or by the user's id or external id. Then those whose reference, "
                "account number, account title or id contains it. Both are newest first. A page that has searched "
                f"{MAX_SCANNED} payouts ends there, even if it is empty; the next page continues.",
                type="string",
                minLength=1,
                maxLength=100,
            ),
        ),
        psp="payouts list --reference {merchant_reference} --search {q}",
        columns="merchant_reference id created_at amount account_number status failure_code",
    )
    async def list_payouts(self, request: Request) -> Page:
        query = request.query
        statuses, dest_types = selected(query, "status", STATUSES), selected(query, "dest_type", DEST_TYPES)
        return await self._payouts.list(request.merchant_id, window(query), statuses, dest_types, query)

    @get(
        "/api/v1/payouts/{payout_id}",
        "Get a payout, or first wait until it reaches a status",
        {200: Payout},
        may_wait=True,
        query=(
            parameter(
                "wait_for",
                "Delay the response until the payout is in one of these statuses, has been in one since it was last "
                "reinitiated, or has ended in another status (FAILED, CANCELLED, REJECTED, RETURNED).",
                **list_of_choices(STATUSES),
            ),
            parameter(
                "timeout",
                "Seconds of real time to wait. After that, the response is the payout in its current status.",
                type="number",
                minimum=0,
                maximum=MAX_WAIT_SECONDS,
                default=DEFAULT_WAIT,
            ),
        ),
        psp=either("payouts get {payout_id}", "--wait-for! {wait_for} --timeout {timeout}", ""),
    )
    async def get_payout(self, request: Request, payout_id: Uuid) -> Payout:
        if "wait_for" not in request.query:
            return await self._payouts.get(request.merchant_id, payout_id)
        statuses = request.query["wait_for"].split(",")
        timeout = 0.0 if request.is_head else float(request.query.get("timeout", DEFAULT_WAIT))
        return await self._payouts.wait(request.merchant_id, payout_id, statuses, timeout)

    @get(
        "/api/v1/payouts/{payout_id}/timeline",
        "List all status changes of a payout, oldest first",
        {200: Timeline},
        psp="payouts timeline",
        columns="at from to cause scenario step event_id",
    )
    async def get_payout_timeline(self, request: Request, payout_id: Uuid) -> Timeline:
        return await self._payouts.timeline(request.merchant_id, payout_id)

    @_transition_operation("POST", "cancel", "Cancel a payout")
    async def cancel_payout(self, request: Request, payout_id: Uuid) -> CommandResult:
        return await self._payouts.transition(request.context, payout_id, "cancel")

    @_transition_operation("POST", "reinitiate", "Retry a failed payout", "INSUFFICIENT_BALANCE")
    async def reinitiate_payout(self, request: Request, payout_id: Uuid) -> CommandResult:
        return await self._payouts.transition(request.context, payout_id, "reinitiate")

    @_transition_operation("PATCH", "approve", "Approve a payout")
    async def approve_payout(self, request: Request, payout_id: Uuid) -> CommandResult:
        return await self._payouts.transition(request.context, payout_id, "approve")

    @_transition_operation("PATCH", "reject", "Reject a payout")
    async def reject_payout(self, request: Request, payout_id: Uuid) -> CommandResult:
        return await self._payouts.transition(request.context, payout_id, "reject")
