"""`/sandbox/v1/listeners`: parse, call the service, render."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandbox.domain.body_errors import FieldProblem
from sandbox.domain.errors import invalid_fields
from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import delete, post
from sandbox.http.request import Request
from sandbox.listeners.relay import Claimed, ReportedResults
from sandbox.listeners.requests import (
    MAX_WAIT_SECONDS,
    ClaimBody,
    CreateListenerBody,
    ReportBody,
    listener_errors,
    report_errors,
)
from sandbox.listeners.service import ListenerService
from sandbox.webhooks.endpoints import CreatedEndpoint

_LINKS: Final = {"claim": ("claim_deliveries", "listener_id"), "delete": ("delete_listener", "listener_id")}


class ListenerApi:
    """The operations of listeners."""

    def __init__(self, listeners: ListenerService) -> None:
        self._listeners = listeners

    def _check(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return listener_errors(fields)

    def _check_report(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return report_errors(fields)

    @post(
        "/sandbox/v1/listeners",
        "Open a listener, or resume one",
        {201: CreatedEndpoint, 200: CreatedEndpoint},
        CreateListenerBody,
        errors=("INVALID_STATE",),
        links=_LINKS,
        check=_check,
        example={"forward_to": "http://localhost:3000/webhooks", "name": "laptop", "event_types": ["payout.*"]},
        description="A listener receives webhooks on a machine that the sandbox cannot reach, such as a laptop behind a "
        "firewall. It claims its due deliveries, posts them itself, and reports the results; `psp listen` does this. It is a "
        "webhook endpoint with `relayed: true`. Its signatures, filters, limits, retries and log are those of any endpoint, "
        "but no worker sends its deliveries. With a `name`, a later listener of that name gets the same endpoint and secret, "
        "and the events that happened in between; `skip_waiting` fails those instead. `forward_to` may be a private address.",
    )
    async def create_listener(self, request: Request, body: CreateListenerBody) -> CommandResult:
        return await self._listeners.open(request.context, body)

    @delete(
        "/sandbox/v1/listeners/{listener_id}",
        "Delete a listener",
        {204: None},
        description="Its deliveries stay in the log. Pending deliveries become failed.",
    )
    async def delete_listener(self, request: Request, listener_id: Uuid) -> CommandResult:
        return await self._listeners.delete(request.context, listener_id)

    @post(
        "/sandbox/v1/listeners/{listener_id}/claim",
        "Claim a listener's due deliveries",
        {200: Claimed},
        ClaimBody,
        may_wait=True,
        errors=("INVALID_STATE", "RATE_LIMITED"),
        example={"max": 10},
        description="Returns deliveries that are due, signed and ready to send. If there are none, waits for one up to "
        f"`wait_seconds` (at most {MAX_WAIT_SECONDS}). Each delivery is leased until its result is reported; once a lease has "
        "ended, the delivery can be claimed again. With a frozen clock, a listener gets one delivery at a time. INVALID_STATE "
        "if the endpoint is disabled.",
    )
    async def claim_deliveries(self, request: Request, body: ClaimBody, listener_id: Uuid) -> CommandResult:
        return await self._listeners.claim(request, listener_id, body)

    @post(
        "/sandbox/v1/listeners/{listener_id}/results",
        "Report the results of a listener's attempts",
        {200: ReportedResults},
        ReportBody,
        check=_check_report,
        example={"results": [{"lease": "AQIDBA==", "status": 200, "duration_ms": 12}]},
        description="Each result becomes an attempt in the delivery's log, and decides its status and its next attempt. A "
        "repeated report changes nothing. If the lease has passed to another attempt, the result is only logged. A result has "
        "a `status`, an `error`, or both if the response broke off.",
    )
    async def report_results(self, request: Request, body: ReportBody, listener_id: Uuid) -> CommandResult:
        errors = report_errors({"results": body.results})
        if errors:
            raise invalid_fields(errors)
        return await self._listeners.report(request.context, listener_id, body)
