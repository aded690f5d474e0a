"""Open, resume and delete listeners. A listener is a webhook endpoint whose deliveries it fetches and posts itself."""

from typing import Final

import msgspec

from sandbox.domain.errors import invalid_fields
from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.operation import delete, post
from sandbox.http.request import Request
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed_results import run_sealed
from sandbox.webhooks.endpoints.requests import ChangeEndpointBody
from sandbox.webhooks.endpoints.rows import CreatedEndpoint, endpoint_not_found
from sandbox.webhooks.endpoints.service import EndpointService, end_deliveries
from sandbox.webhooks.listeners.relay import Claimed, Relay, ReportedResults
from sandbox.webhooks.listeners.requests import (
    ANY_NETWORK,
    MAX_WAIT_SECONDS,
    ClaimBody,
    CreateListenerBody,
    ReportBody,
    listener_errors,
    report_errors,
)

_SQL: Final = read_statements(__name__)


_LINKS: Final = {"claim": ("claim_deliveries", "listener_id"), "delete": ("delete_listener", "listener_id")}


class ListenerService:
    """Opens and deletes listeners, and serves the running ones."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox, relay: Relay) -> None:
        self._work = work
        self._box = box
        self._relay = relay
        self._endpoints = EndpointService(work, box, ANY_NETWORK)

    @post(
        "/sandbox/v1/listeners",
        "Open a listener, or resume one",
        {201: CreatedEndpoint, 200: CreatedEndpoint},
        CreateListenerBody,
        errors=("INVALID_STATE",),
        links=_LINKS,
        check=listener_errors,
        example={"forward_to": "http://localhost:3000/webhooks", "name": "laptop", "event_types": ["payout.*"]},
        description="A listener receives webhooks on a machine that the sandbox cannot reach, such as a laptop behind a "
        "firewall. It claims its due deliveries, posts them itself, and reports the results; `psp listen` does this. It is a "
        "webhook endpoint with `relayed: true`. Its signatures, filters, limits, retries and log are those of any endpoint, "
        "but no worker sends its deliveries. With a `name`, a later listener of that name gets the same endpoint and secret, "
        "and the events that happened in between; `skip_waiting` fails those instead. `forward_to` may be a private address.",
    )
    async def create_listener(self, context: RequestContext, body: CreateListenerBody) -> CommandResult:
        """Create a listener's endpoint, or resume the one of the same name. Responds with 201 or 200, and its secret.

        Raises VALIDATION_ERROR. Returns INVALID_STATE, stored under the key, if the merchant has too many endpoints.
        """
        body.check()
        name = body.name
        if name is not None and body.skip_waiting:
            await self._skip_waiting(context.merchant_id, name)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            wanted = body.endpoint()
            found = None if name is None else await conn.fetchval(_SQL["by_name"], context.merchant_id, name)
            if found is None:
                created = await self._endpoints.create_in(conn, unit, wanted, relayed=True)
                return CommandResult(201, msgspec.json.encode(created), f"/api/v1/webhook-endpoints/{created.id}")
            changes = ChangeEndpointBody(**{n: getattr(wanted, n) for n in wanted.__struct_fields__}, status="ENABLED")
            resumed = await self._endpoints.change_in(conn, unit, found, changes)
            revealed = await self._endpoints.reveal(conn, context.merchant_id, resumed)
            return CommandResult(200, msgspec.json.encode(revealed))

        return await run_sealed(self._work, self._box, context, action)

    @delete(
        "/sandbox/v1/listeners/{listener_id}",
        "Delete a listener",
        {204: None},
        description="Its deliveries stay in the log. Pending deliveries become failed.",
    )
    async def delete_listener(self, context: RequestContext, listener_id: Uuid) -> CommandResult:
        """Delete a listener and its endpoint. Responds with 204. Raises NOT_FOUND; see `delete_webhook_endpoint`."""
        if not (await self._endpoints.get_webhook_endpoint(context.merchant_id, listener_id)).relayed:
            raise endpoint_not_found(listener_id)
        return await self._endpoints.delete_webhook_endpoint(context, listener_id)

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
    async def claim_deliveries(self, request: Request, listener_id: Uuid, body: ClaimBody) -> CommandResult:
        """Hand due deliveries to the listener. Responds with 200 and Claimed. Raises the errors of `Relay.claim`."""

        async def claim() -> CommandResult:
            claimed = await self._relay.claim(
                request.merchant_id, listener_id, body.max, body.wait_seconds, request.wait_for_disconnect
            )
            return CommandResult(200, msgspec.json.encode(claimed))

        return await self._work.run_idempotent(request.context, claim)

    @post(
        "/sandbox/v1/listeners/{listener_id}/results",
        "Report the results of a listener's attempts",
        {200: ReportedResults},
        ReportBody,
        check=report_errors,
        example={"results": [{"lease": "AQIDBA==", "status": 200, "duration_ms": 12}]},
        description="Each result becomes an attempt in the delivery's log, and decides its status and its next attempt. A "
        "repeated report changes nothing. If the lease has passed to another attempt, the result is only logged. A result has "
        "a `status`, an `error`, or both if the response broke off.",
    )
    async def report_results(self, context: RequestContext, listener_id: Uuid, body: ReportBody) -> CommandResult:
        """Record the results of attempts. Responds with 200 and ReportedResults. Raises the errors of `Relay.report`."""
        errors = report_errors({"results": body.results})
        if errors:
            raise invalid_fields(errors)

        async def report() -> CommandResult:
            reported = await self._relay.report(context.merchant_id, listener_id, body.results)
            return CommandResult(200, msgspec.json.encode(reported))

        return await self._work.run_idempotent(context, report)

    async def _skip_waiting(self, merchant_id: str, name: str) -> None:
        """Fail the deliveries that wait for the listener of this name, in as many transactions as it takes."""
        context = RequestContext(merchant_id, None, "", "", "")

        async def action(conn: Connection, unit: UnitOfWork, _: bytes | None) -> CommandResult:
            found = await conn.fetchval(_SQL["by_name"], merchant_id, name)
            has_more = found is not None and await end_deliveries(conn, unit, found)
            return CommandResult(200, b"", provisional=has_more)

        await self._work.run_resumable(context, action)
