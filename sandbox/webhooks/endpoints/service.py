"""Create, read, change and delete webhook endpoints.

Every write holds the merchant's lock. Writing events holds it too, so an event never sees a half-changed endpoint.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET

from sandbox.domain.errors import Problem, invalid, invalid_fields
from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import PAGE, delete, get, patch, post
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed_results import run_sealed
from sandbox.webhooks.delivery.paced_claims import end_waits
from sandbox.webhooks.delivery.signer import secret_columns, secret_context
from sandbox.webhooks.endpoints.requests import (
    ChangeEndpointBody,
    CreateEndpointBody,
    check_endpoint,
    dialect_errors,
    endpoint_errors,
)
from sandbox.webhooks.endpoints.rows import (
    SHOWN,
    CreatedEndpoint,
    Endpoint,
    change_row,
    columns_of,
    delete_row,
    disable_row,
    find_endpoint,
    ids_of_endpoints,
    page_of_endpoints,
    status_columns,
    to_endpoint,
)
from sandbox.webhooks.endpoints.tables import WebhookEndpoints
from sandbox.webhooks.outbound.address_guard import Network
from sandbox.webhooks.outbound.url_check import url_error
from sandbox.webhooks.signing.dialects import secret_for, shares_secrets

MAX_ENDPOINTS: Final = 16
"""Maximum number of endpoints per merchant. Each event creates up to this many deliveries in its transaction."""
MAX_DELIVERIES_FAILED_PER_TRANSACTION: Final = 5000
"""Maximum number of deliveries that one transaction sets to FAILED. More would hold the merchant's lock too long."""

_SQL: Final = read_statements(__name__)


_PSP_ROUTING: Final = "--events {event_types:list} --filter {filters:filters}"
_PSP_SETTINGS: Final = (
    f"{_PSP_ROUTING} --custom-signing {{custom_signing:file=signing.json}} --ordered/--unordered {{ordered:flag}}"
)
_LINKS: Final = {
    "get": ("get_webhook_endpoint", "endpoint_id"),
    "change": ("change_webhook_endpoint", "endpoint_id"),
    "delete": ("delete_webhook_endpoint", "endpoint_id"),
}


class EndpointService:
    """Creates, reads, changes and deletes webhook endpoints."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox, allowed_networks: Sequence[Network]) -> None:
        """`box` seals the secrets. `allowed_networks` are the private networks that webhooks can be delivered to."""
        self._work = work
        self._box = box
        self._allowed = tuple(allowed_networks)

    def check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in an endpoint's fields that its schema cannot express."""
        return endpoint_errors(fields, self._allowed)

    @post(
        "/api/v1/webhook-endpoints",
        "Create a webhook endpoint",
        {201: CreatedEndpoint},
        CreateEndpointBody,
        errors=("INVALID_STATE",),
        links=_LINKS,
        check=check,
        example={
            "url": "https://example.com/webhooks",
            "event_types": ["payout.*"],
            "filters": [{"field": "data.amount", "op": "gte", "value": 1000}],
        },
        description="The secret is returned only here. At most 16 per merchant. An address that webhooks must not be "
        "delivered to is refused. With `ordered`, a failing delivery holds back later events of the same "
        "payout, until it succeeds or its retries are used up. `rate_limit` is in attempts per second, evenly spaced; "
        "`max_in_flight` is the number of attempts that await their responses. Both hold across all workers, and in a frozen "
        "world, where deliveries go one at a time, neither causes a wait. An event is sent if it matches `event_types` and "
        "all `filters`. For `v1a` the secret is null: receivers verify with the `public_key`. `stripe`, `github` and `custom` "
        "send the signature headers of that dialect, keyed with the whole text of the secret, and `webhook-id`.",
        psp=f"endpoints create {_PSP_SETTINGS}",
    )
    async def create_webhook_endpoint(self, context: RequestContext, body: CreateEndpointBody) -> CommandResult:
        """Create an endpoint. Responds with 201, the endpoint and its secret; so does a replay. Raises VALIDATION_ERROR."""
        check_endpoint(body, self._allowed)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            created = await self.create_in(conn, unit, body)
            return CommandResult(201, msgspec.json.encode(created), f"/api/v1/webhook-endpoints/{created.id}")

        return await run_sealed(self._work, self._box, context, action)

    async def create_in(
        self, conn: Connection, unit: UnitOfWork, body: CreateEndpointBody, *, relayed: bool = False
    ) -> CreatedEndpoint:
        """Create an endpoint with a new secret in the caller's transaction. Raises the errors of `insert`."""
        # The first endpoint uses the webhook secret that was returned when the merchant was created.
        merchant_secret = await conn.fetchval(_SQL["read_unused"], unit.merchant_id)
        secret = (
            secret_for(body.signing, unit.ids.random_bytes(32))
            if merchant_secret is None or not shares_secrets(body.signing, "v1")
            else self._box.open(merchant_secret, f"{unit.merchant_id}/webhook")
        )
        return _with_secret(await self.insert(unit, body, secret, relayed=relayed), secret)

    async def insert(self, unit: UnitOfWork, body: CreateEndpointBody, secret: str, *, relayed: bool = False) -> Endpoint:
        """Insert an endpoint in the caller's transaction, which must hold the merchant's lock. `secret` signs its webhooks.

        Raises VALIDATION_ERROR if the URL is not acceptable, INVALID_STATE if the merchant has MAX_ENDPOINTS endpoints
        already. Nothing is written then.
        """
        error = url_error(body.url, self._allowed)
        if error is not None:
            raise invalid("url", error)
        taken = {str(record["id"]) for record in await ids_of_endpoints(unit.merchant_id)}
        if len(taken) >= MAX_ENDPOINTS:
            raise Problem("INVALID_STATE", f"A merchant has at most {MAX_ENDPOINTS} webhook endpoints; delete one first.")
        endpoint_id = unit.ids.next()
        while endpoint_id in taken:  # endpoints survive a reset, but a seeded world generates the same ids again
            endpoint_id = unit.ids.next()
        row = WebhookEndpoints(
            merchant_id=unit.merchant_id,
            id=endpoint_id,
            **columns_of(body),
            **secret_columns(self._box, unit.merchant_id, endpoint_id, secret),
            status="ENABLED",
            relayed=relayed or None,
            created_at=unit.now,
            updated_at=unit.now,
        )
        (record,) = await WebhookEndpoints.insert(row).returning(*SHOWN)
        return to_endpoint(record)

    @get(
        "/api/v1/webhook-endpoints",
        "List webhook endpoints, newest first",
        {200: list[Endpoint]},
        query=PAGE,
        psp="endpoints list",
        columns="id url event_types relayed status disabled_reason",
    )
    async def list_webhook_endpoints(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of endpoints, newest first."""
        async with connection(merchant_id):
            records = await page_of_endpoints(merchant_id, window.before, window.since, window.limit + 1)
        found = [to_endpoint(record) for record in records]
        return page(found, window.limit, [endpoint.id for endpoint in found])

    @get("/api/v1/webhook-endpoints/{endpoint_id}", "Get a webhook endpoint", {200: Endpoint}, psp="endpoints get")
    async def get_webhook_endpoint(self, merchant_id: str, endpoint_id: Uuid) -> Endpoint:
        """Return an endpoint. Raises NOT_FOUND."""
        async with connection(merchant_id):
            return await find_endpoint(merchant_id, endpoint_id)

    @patch(
        "/api/v1/webhook-endpoints/{endpoint_id}",
        "Change a webhook endpoint",
        {200: Endpoint},
        ChangeEndpointBody,
        example={"status": "ENABLED"},
        check=check,
        description="Omitted fields keep their value; `filters: []` removes all filters. Deliveries due to a disabled endpoint "
        "wait until it is enabled; newer events are kept and can be recovered. An endpoint is disabled automatically if it "
        "responds with 410, or if an attempt fails and none has succeeded for 5 days of the merchant's time; `history` shows "
        "when and why. A change of `signing` keeps the secret, except to "
        "or from `v1a`: then the endpoint gets a new key, and `rotate-secret` shows the secret.",
        psp=f"endpoints update --target {{url}} {_PSP_SETTINGS}",
    )
    async def change_webhook_endpoint(
        self,
        context: RequestContext,
        endpoint_id: Uuid,
        body: ChangeEndpointBody,
    ) -> CommandResult:
        """Change the fields that the body contains. Responds with 200 and the endpoint.

        Returns NOT_FOUND, stored under the key, for an unknown id, and raises it for an id that is not a UUID. Raises
        VALIDATION_ERROR.
        """
        check_endpoint(body, self._allowed)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            return CommandResult(200, msgspec.json.encode(await self.change_in(conn, unit, endpoint_id, body)))

        return await self._work.run(context, action)

    async def change_in(self, conn: Connection, unit: UnitOfWork, endpoint_id: str, body: ChangeEndpointBody) -> Endpoint:
        """Change an endpoint in the caller's transaction, which must hold the merchant's lock. Raises NOT_FOUND."""
        before = await find_endpoint(unit.merchant_id, endpoint_id)
        # Deliveries to a disabled endpoint stay due but are not claimed. They continue once it is enabled again.
        after = _changed(before, body)
        values = columns_of(after)
        if body.status is not UNSET:  # otherwise a worker may be disabling it at this moment, without the merchant's lock
            values |= status_columns(before, after, unit.now)
            unit.effects.add(Effect.WORK_DUE)  # so that workers stop sending to it, or continue
        if not shares_secrets(before.signing, after.signing):
            secret = secret_for(after.signing, unit.ids.random_bytes(32))
            values |= secret_columns(self._box, unit.merchant_id, endpoint_id, secret) | {"previous_secrets": None}
        (record,) = await change_row(unit.merchant_id, endpoint_id, values, unit.now)
        if before.ordered and not after.ordered:
            await end_waits(conn, unit.merchant_id, endpoint_id, unit.now)
            unit.effects.add(Effect.WORK_DUE)
        return to_endpoint(record)

    async def reveal(self, conn: Connection, merchant_id: str, endpoint: Endpoint) -> CreatedEndpoint:
        """Return the endpoint with its secret. Raises SealedSecretError if it is sealed under another SANDBOX_SECRET_KEY."""
        sealed = await conn.fetchval(_SQL["read_secret"], merchant_id, endpoint.id)
        return _with_secret(endpoint, self._box.open(sealed, secret_context(merchant_id, endpoint.id)))

    @delete(
        "/api/v1/webhook-endpoints/{endpoint_id}",
        "Delete a webhook endpoint",
        {204: None},
        description="Its deliveries stay in the log. Pending deliveries become failed, and none can be resent.",
        psp="endpoints delete",
    )
    async def delete_webhook_endpoint(self, context: RequestContext, endpoint_id: Uuid) -> CommandResult:
        """Delete an endpoint. Responds with 204. Returns NOT_FOUND, stored under the key, for an unknown id.

        Its deliveries stay in the log; pending ones become FAILED. Many pending deliveries take several transactions. If the
        process ends between two of them, the endpoint stays disabled, and another delete resumes the work.
        """

        async def action(conn: Connection, unit: UnitOfWork, _: bytes | None) -> CommandResult:
            await find_endpoint(context.merchant_id, endpoint_id)
            if await end_deliveries(conn, unit, endpoint_id):
                await disable_row(context.merchant_id, endpoint_id, "It is being deleted.", unit.now)
                return CommandResult(202, b"", provisional=True)
            await delete_row(context.merchant_id, endpoint_id)
            return CommandResult(204, b"")

        # The loop terminates: new events arrive more slowly than pending deliveries are failed.
        return await self._work.run_resumable(context, action)

    async def end_webhook_deliveries(self, context: RequestContext, endpoint_id: str) -> None:
        """Set the unfinished deliveries of a disabled endpoint to FAILED, for a dialect that does not keep them."""

        async def action(conn: Connection, unit: UnitOfWork, _: bytes | None) -> CommandResult:
            has_more = await end_deliveries(conn, unit, endpoint_id)
            return CommandResult(202 if has_more else 204, b"", provisional=has_more)

        await self._work.run_resumable(context, action)


async def end_deliveries(conn: Connection, unit: UnitOfWork, endpoint_id: str) -> bool:
    """Set an endpoint's unfinished deliveries to FAILED. Return whether there may be more than one transaction can change."""
    limit = MAX_DELIVERIES_FAILED_PER_TRANSACTION
    failed = [
        await conn.execute(_SQL["end_deliveries"], unit.merchant_id, endpoint_id, limit, unit.now, status)
        for status in ("PENDING", "PAUSED")
    ]
    return f"INSERT 0 {limit}" in failed


def _changed(before: Endpoint, body: ChangeEndpointBody) -> Endpoint:
    after = msgspec.structs.replace(before)
    for name in body.__struct_fields__:
        value = getattr(body, name)
        if value is not UNSET:
            setattr(after, name, value)
    if after.signing != "custom" and body.custom_signing is UNSET:
        after.custom_signing = None
    errors = dialect_errors(after.signing, after.custom_signing)
    if errors:
        raise invalid_fields(errors)
    if after.status == "ENABLED":
        after.disabled_reason = None
    elif before.status == "ENABLED":
        after.disabled_reason = "It was disabled through the API."
    return after


def _with_secret(endpoint: Endpoint, secret: str) -> CreatedEndpoint:
    return CreatedEndpoint(**msgspec.structs.asdict(endpoint), secret=secret if endpoint.public_key is None else None)
