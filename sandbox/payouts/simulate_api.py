"""`/sandbox/v1/payouts/{payout_id}/simulate`: parse, call the service, render."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar import Router, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.domain.body_errors import Fault
from sandbox.domain.choices import PayoutStatus
from sandbox.domain.errors import all_invalid
from sandbox.domain.fields import FailureCode
from sandbox.domain.payout import Payout
from sandbox.domain.payout_states import FAILED, REJECTED, RETURNED
from sandbox.http.answers import answered
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import Operation
from sandbox.payouts.requests import failure_faults
from sandbox.payouts.service import PayoutService


class SimulateBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /payouts/{payout_id}/simulate`; `failure_code` is for FAILED, RETURNED and REJECTED."""

    status: PayoutStatus
    failure_code: FailureCode | None = None


_SIMULATE: Final = Operation(
    "Move a payout to another status, as its bank would", {200: Payout}, SimulateBody,
    errors=("FORBIDDEN", "NOT_FOUND", "INVALID_STATE", "INSUFFICIENT_BALANCE"), idempotency="optional",
    example={"status": "SUCCESS"},
    description="Makes any legal change, with its money, timeline entry, event and webhooks. Simulating the current "
    "status responds with 200 and changes nothing. Approving or rejecting (REQUESTED to PENDING or REJECTED, IN_REVIEW "
    "to PROCESSING or FAILED) needs an `admin` key.",
)  # fmt: skip


def _check(members: Mapping[str, Any]) -> list[Fault]:
    return failure_faults(members, (FAILED, RETURNED, REJECTED))


def simulate_router(gate: RequestGuard, service: PayoutService) -> Router:
    """The route of simulations."""
    decoder = msgspec.json.Decoder(SimulateBody)

    @post("/{payout_id:str}/simulate", operation_id="simulate_payout", opt={"operation": _SIMULATE}, status_code=200)
    async def simulate_payout(request: HttpRequest, payout_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        body, key = await gate.parse(request, decoder, key_required=False, check=_check)
        faults = _check(msgspec.structs.asdict(body))
        if faults:
            raise all_invalid(faults)
        return answered(
            await service.simulate(
                gate.context(request, key),
                payout_id,
                body.status,
                body.failure_code,
                may_decide=caller.is_admin,
            )
        )

    return Router("/sandbox/v1/payouts", route_handlers=[simulate_payout])
