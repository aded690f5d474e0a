"""Open, resume and delete listeners. A listener is a webhook endpoint whose deliveries it fetches and posts itself."""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.db.statements import read_statements
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.request import Request
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.listeners.relay import Relay
from sandbox.listeners.requests import ANY_NETWORK, ClaimBody, CreateListenerBody, ReportBody
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed import run_sealed
from sandbox.webhooks.endpoints import EndpointService, end_deliveries, endpoint_not_found
from sandbox.webhooks.requests import ChangeEndpointBody

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_SQL: Final = read_statements(__name__)
_BY_NAME: Final = _SQL["by_name"]


class ListenerService:
    """Opens and deletes listeners, and serves the running ones."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox, relay: Relay) -> None:
        self._work = work
        self._box = box
        self._relay = relay
        self._endpoints = EndpointService(work, box, ANY_NETWORK)

    async def open(self, context: RequestContext, body: CreateListenerBody) -> CommandResult:
        """Create a listener's endpoint, or resume the one of the same name. Responds with 201 or 200, and its secret.

        Raises VALIDATION_ERROR. Returns INVALID_STATE, stored under the key, if the merchant has too many endpoints.
        """
        body.check()
        name = body.name
        if name is not None and body.skip_waiting:
            await self._skip_waiting(context.merchant_id, name)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            wanted = body.endpoint()
            found = None if name is None else await conn.fetchval(_BY_NAME, context.merchant_id, name)
            if found is None:
                created = await self._endpoints.create_in(conn, unit, wanted, relayed=True)
                return CommandResult(201, msgspec.json.encode(created), f"/api/v1/webhook-endpoints/{created.id}")
            changes = ChangeEndpointBody(**{n: getattr(wanted, n) for n in wanted.__struct_fields__}, status="ENABLED")
            resumed = await self._endpoints.change_in(conn, unit, found, changes)
            revealed = await self._endpoints.reveal(conn, context.merchant_id, resumed)
            return CommandResult(200, msgspec.json.encode(revealed))

        return await run_sealed(self._work, self._box, context, action)

    async def delete(self, context: RequestContext, listener_id: str) -> CommandResult:
        """Delete a listener and its endpoint. Responds with 204. Raises NOT_FOUND; see `EndpointService.delete`."""
        if not (await self._endpoints.get(context.merchant_id, listener_id)).relayed:
            raise endpoint_not_found(listener_id)
        return await self._endpoints.delete(context, listener_id)

    async def claim(self, request: Request, listener_id: str, body: ClaimBody) -> CommandResult:
        """Hand due deliveries to the listener. Responds with 200 and Claimed. Raises the errors of `Relay.claim`."""

        async def claim() -> CommandResult:
            claimed = await self._relay.claim(
                request.merchant_id, listener_id, body.max, body.wait_seconds, request.wait_for_disconnect
            )
            return CommandResult(200, msgspec.json.encode(claimed))

        return await self._work.run_idempotent(request.context, claim)

    async def report(self, context: RequestContext, listener_id: str, body: ReportBody) -> CommandResult:
        """Record the results of attempts. Responds with 200 and ReportedResults. Raises the errors of `Relay.report`."""

        async def report() -> CommandResult:
            reported = await self._relay.report(context.merchant_id, listener_id, body.results)
            return CommandResult(200, msgspec.json.encode(reported))

        return await self._work.run_idempotent(context, report)

    async def _skip_waiting(self, merchant_id: str, name: str) -> None:
        """Fail the deliveries that wait for the listener of this name, in as many transactions as it takes."""
        context = RequestContext(merchant_id, None, "", "", "")

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, _: bytes | None) -> CommandResult:
            found = await conn.fetchval(_BY_NAME, merchant_id, name)
            has_more = found is not None and await end_deliveries(conn, unit, found)
            return CommandResult(200, b"", provisional=has_more)

        await self._work.run_resumable(context, action)
