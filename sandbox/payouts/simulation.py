"""Move a payout as its bank would, and list what can be done with it: `/sandbox/v1/payouts/{payout_id}`."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from sandbox.domain.enumerations import PayoutStatus
from sandbox.domain.errors import invalid_fields
from sandbox.domain.failure_codes import TAKES_FAILURE_CODE
from sandbox.domain.fields import FailureCode, Uuid, about
from sandbox.domain.payout import Payout
from sandbox.domain.payout_commands import TransitionPayout
from sandbox.domain.unit import CommandResult
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import get, post
from sandbox.http.request import Request
from sandbox.payouts.possible_actions import PayoutActions, legal_actions
from sandbox.payouts.reads import PayoutReads
from sandbox.payouts.requests import failure_errors
from sandbox.unit_of_work.runner import UnitOfWorkRunner


class SimulateBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /payouts/{payout_id}/simulate`. `failure_code` is only allowed with FAILED, RETURNED and REJECTED."""

    status: Annotated[PayoutStatus, about("The status to move it to.")]
    failure_code: FailureCode | None = None


class SimulationService:
    """The sandbox's operations on one payout."""

    def __init__(self, work: UnitOfWorkRunner, reads: PayoutReads) -> None:
        self._work = work
        self._reads = reads

    def _check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        return failure_errors(fields, TAKES_FAILURE_CODE)

    @post(
        "/sandbox/v1/payouts/{payout_id}/simulate",
        "Move a payout to another status, as its bank would",
        {200: Payout},
        SimulateBody,
        errors=("FORBIDDEN", "NOT_FOUND", "INVALID_STATE", "INSUFFICIENT_BALANCE"),
        example={"status": "SUCCESS"},
        check=_check,
        description="Makes any legal change, with its money, timeline entry, event and webhooks. Simulating the current "
        "status responds with 200 and changes nothing. Approving or rejecting (REQUESTED to PENDING or REJECTED, IN_REVIEW "
        "to PROCESSING or FAILED) needs an `admin` key.",
        psp="payouts simulate",
    )
    async def simulate_payout(self, request: Request, body: SimulateBody, payout_id: Uuid) -> CommandResult:
        """Move a payout to another status as its bank would. Raises VALIDATION_ERROR; other refusals are returned."""
        errors = self._check(msgspec.structs.asdict(body))
        if errors:
            raise invalid_fields(errors)
        transition = TransitionPayout(
            request.context, payout_id, "transition", status=body.status, cause="simulation",
            failure_code=body.failure_code, can_approve=request.caller.is_admin,
        )  # fmt: skip
        return await self._work.submit(transition)

    @get(
        "/sandbox/v1/payouts/{payout_id}/actions",
        "List the requests that can change a payout now",
        {200: PayoutActions},
        description="Approve, reject, cancel, reinitiate, and every legal simulation. The list depends only on the status: a "
        "request can still be refused because of the balance, or because the status has changed.",
        psp="payouts actions",
    )
    async def list_payout_actions(self, merchant_id: str, payout_id: Uuid) -> PayoutActions:
        """Return the requests that can change a payout now. Raises NOT_FOUND."""
        payout = await self._reads.require(merchant_id, payout_id)
        return PayoutActions(payout.id, payout.status, legal_actions(payout.status))  # type: ignore[arg-type]  # a stored status
