"""Create, read, change and delete webhook endpoints.

Every write holds the merchant's lock. Writing events holds it too, so an event never sees a half-changed endpoint.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET
from piccolo.columns import Column
from piccolo.query.methods.delete import Delete
from piccolo.query.methods.select import First, Select
from piccolo.query.methods.update import Update

from sandbox.db.engine import db_errors_as_503
from sandbox.db.rows import update_by_key
from sandbox.domain.address_guard import Network
from sandbox.domain.body_errors import FieldProblem
from sandbox.domain.clock import render
from sandbox.domain.destination_url import url_error
from sandbox.domain.errors import Problem, invalid
from sandbox.domain.event_filters import Filter, from_text, to_text
from sandbox.domain.ids import is_uuid
from sandbox.domain.redaction import Address, Secret
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.domain.webhook_signing import new_secret
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.secrets_at_rest import NONCE_SIZE, SecretBox
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed import run_sealed
from sandbox.webhooks.requests import (
    ChangeEndpointBody,
    CreateEndpointBody,
    check_endpoint,
    endpoint_errors,
)
from sandbox.webhooks.tables import WebhookEndpoints

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

MAX_ENDPOINTS: Final = 16
"""Maximum number of endpoints per merchant. Each event creates up to this many deliveries in its transaction."""
MAX_DELIVERIES_FAILED_PER_TRANSACTION: Final = 5000
"""Maximum number of deliveries that one transaction sets to FAILED. More would hold the merchant's lock too long."""

_SETTINGS: Final = CreateEndpointBody.__struct_fields__
"""What the merchant can set. Each is a field of the API and a column of the table."""
_SHOWN: Final = tuple(
    getattr(WebhookEndpoints, name) for name in ("id", *_SETTINGS, "status", "disabled_reason", "created_at", "updated_at")
)

# The webhook secret that was returned with the merchant. No row if an endpoint already uses it.
_READ_UNUSED: Final = """
SELECT webhook_secret FROM merchants m WHERE merchant_id = $1
    AND NOT EXISTS (SELECT FROM webhook_endpoints e WHERE e.merchant_id = m.merchant_id)
"""

# Locks rows in the same order as recording attempts does. Otherwise the two could deadlock.
_END_DELIVERIES: Final = update_by_key(
    "webhook_deliveries",
    rows="""(
    SELECT id FROM webhook_deliveries
    WHERE merchant_id = $1 AND status <> ''
        AND (endpoint_id, status) >= ($2::uuid, $5::text) AND (endpoint_id, status) <= ($2, $5)
    ORDER BY merchant_id, endpoint_id, status, id LIMIT $3 FOR NO KEY UPDATE
) n""",
    key=("id", "n.id"),
    changes={"status": "'FAILED'", "next_attempt_at": "NULL", "leased_until": "NULL", "updated_at": "$4"},
    kept=("event_id", "endpoint_id", "attempts", "scheduled", "created_at"),
    lock=True,
)


class Endpoint(msgspec.Struct, kw_only=True):
    """A webhook endpoint."""

    id: str
    url: Address
    event_types: list[str]
    filters: list[Filter]
    signing: str
    signing_time: str
    retry_profile: str
    ordered: bool
    rate_limit: int | None
    max_in_flight: int | None
    description: str
    status: str
    disabled_reason: str | None
    created_at: str
    updated_at: str


class CreatedEndpoint(Endpoint, kw_only=True):
    """A webhook endpoint with its secret. The API returns the secret only once."""

    secret: Secret


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

    async def create(self, context: RequestContext, body: CreateEndpointBody) -> CommandResult:
        """Create an endpoint. Responds with 201, the endpoint and its secret; so does a replay. Raises VALIDATION_ERROR."""
        check_endpoint(body, self._allowed)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            # The first endpoint uses the webhook secret that was returned when the merchant was created.
            merchant_secret = await conn.fetchval(_READ_UNUSED, context.merchant_id)
            secret = (
                new_secret(unit.ids.random_bytes(32))
                if merchant_secret is None
                else self._box.open(merchant_secret, f"{context.merchant_id}/webhook")
            )
            endpoint = await self.insert(unit, body, secret)
            created = CreatedEndpoint(**msgspec.structs.asdict(endpoint), secret=secret)
            return CommandResult(201, msgspec.json.encode(created), f"/api/v1/webhook-endpoints/{endpoint.id}")

        return await run_sealed(self._work, self._box, context, action)

    async def insert(self, unit: UnitOfWork, body: CreateEndpointBody, secret: str) -> Endpoint:
        """Insert an endpoint in the caller's transaction, which must hold the merchant's lock. `secret` signs its webhooks.

        Raises VALIDATION_ERROR if the URL is not acceptable, INVALID_STATE if the merchant has MAX_ENDPOINTS endpoints
        already. Nothing is written then.
        """
        error = url_error(body.url, self._allowed)
        if error is not None:
            raise invalid("url", error)
        taken = {str(record["id"]) for record in await _ids(unit.merchant_id)}
        if len(taken) >= MAX_ENDPOINTS:
            raise Problem("INVALID_STATE", f"A merchant has at most {MAX_ENDPOINTS} webhook endpoints; delete one first.")
        endpoint_id = unit.ids.next()
        while endpoint_id in taken:  # endpoints survive a reset, but a seeded world generates the same ids again
            endpoint_id = unit.ids.next()
        row = WebhookEndpoints(
            merchant_id=unit.merchant_id,
            id=endpoint_id,
            **_columns(body),
            secret=self._box.seal(secret, _context(unit.merchant_id, endpoint_id), os.urandom(NONCE_SIZE)),
            status="ENABLED",
            created_at=unit.now,
            updated_at=unit.now,
        )
        (record,) = await WebhookEndpoints.insert(row).returning(*_SHOWN)
        return _to_endpoint(record)

    async def list(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of endpoints, newest first."""
        async with db_errors_as_503():
            records = await _page(merchant_id, window.before, window.since, window.limit + 1)
        found = [_to_endpoint(record) for record in records]
        return page(found, window.limit, [endpoint.id for endpoint in found])

    async def get(self, merchant_id: str, endpoint_id: str) -> Endpoint:
        """Return an endpoint. Raises NOT_FOUND."""
        async with db_errors_as_503():
            return await find_endpoint(merchant_id, endpoint_id)

    async def change(
        self,
        context: RequestContext,
        endpoint_id: str,
        body: ChangeEndpointBody,
    ) -> CommandResult:
        """Change the fields that the body contains. Responds with 200 and the endpoint.

        Returns NOT_FOUND, stored under the key, for an unknown id, and raises it for an id that is not a UUID. Raises
        VALIDATION_ERROR.
        """
        require_endpoint_id(endpoint_id)
        check_endpoint(body, self._allowed)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            before = await find_endpoint(context.merchant_id, endpoint_id)
            # Deliveries to a disabled endpoint stay due but are not claimed. They continue once it is enabled again.
            after = _changed(before, body)
            (record,) = await _change(context.merchant_id, endpoint_id, after, unit.now)
            return CommandResult(200, msgspec.json.encode(_to_endpoint(record)))

        return await self._work.run(context, action)

    async def delete(self, context: RequestContext, endpoint_id: str) -> CommandResult:
        """Delete an endpoint. Responds with 204. Returns NOT_FOUND, stored under the key, for an unknown id.

        Its deliveries stay in the log; pending ones become FAILED. Many pending deliveries take several transactions. If the
        process ends between two of them, the endpoint stays disabled, and another delete resumes the work.
        """
        require_endpoint_id(endpoint_id)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, _: bytes | None) -> CommandResult:
            await find_endpoint(context.merchant_id, endpoint_id)
            limit = MAX_DELIVERIES_FAILED_PER_TRANSACTION
            failed = [
                await conn.execute(_END_DELIVERIES, context.merchant_id, endpoint_id, limit, unit.now, status)
                for status in ("PENDING", "PAUSED")
            ]
            if f"INSERT 0 {limit}" in failed:
                await _disable(context.merchant_id, endpoint_id, "It is being deleted.", unit.now)
                return CommandResult(202, b"", provisional=True)
            await _delete(context.merchant_id, endpoint_id)
            return CommandResult(204, b"")

        # The loop terminates: new events arrive more slowly than pending deliveries are failed.
        return await self._work.run_resumable(context, action)


async def find_endpoint(merchant_id: str, endpoint_id: str) -> Endpoint:
    """Return an endpoint, read in the caller's transaction if there is one. Raises NOT_FOUND, and asyncpg's errors."""
    require_endpoint_id(endpoint_id)
    record = await _select_one(merchant_id, endpoint_id)
    if record is None:
        raise Problem("NOT_FOUND", f"Webhook endpoint {endpoint_id} not found.")
    return _to_endpoint(record)


def require_endpoint_id(endpoint_id: str) -> None:
    """Raise NOT_FOUND if this is not a UUID, because PostgreSQL would refuse it."""
    if not is_uuid(endpoint_id):
        raise Problem("NOT_FOUND", "Webhook endpoint not found; endpoint ids are lowercase UUIDs.")


def _page(merchant_id: str, before: str, since: str, limit: int) -> Select[WebhookEndpoints]:
    e = WebhookEndpoints
    found = e.select(*_SHOWN).where(e.merchant_id == merchant_id, e.id < before, e.id >= since)
    return found.order_by(e.id, ascending=False).limit(limit)


def _ids(merchant_id: str) -> Select[WebhookEndpoints]:
    return WebhookEndpoints.select(WebhookEndpoints.id).where(WebhookEndpoints.merchant_id == merchant_id)


def _select_one(merchant_id: str, endpoint_id: str) -> First:
    e = WebhookEndpoints
    return e.select(*_SHOWN).where(e.merchant_id == merchant_id, e.id == endpoint_id).first()


def _change(merchant_id: str, endpoint_id: str, after: Endpoint, now: datetime) -> Update[WebhookEndpoints]:
    e = WebhookEndpoints
    values: dict[Column | str, Any] = {
        **_columns(after),
        e.status: after.status,
        e.disabled_reason: after.disabled_reason,
        e.updated_at: now,
    }
    return e.update(values).where(e.merchant_id == merchant_id, e.id == endpoint_id).returning(*_SHOWN)


def _disable(merchant_id: str, endpoint_id: str, reason: str, now: datetime) -> Update[WebhookEndpoints]:
    e = WebhookEndpoints
    values: dict[Column | str, Any] = {e.status: "DISABLED", e.disabled_reason: reason, e.updated_at: now}
    return e.update(values).where(e.merchant_id == merchant_id, e.id == endpoint_id)


def _delete(merchant_id: str, endpoint_id: str) -> Delete:
    e = WebhookEndpoints
    return e.delete().where(e.merchant_id == merchant_id, e.id == endpoint_id)


def _changed(before: Endpoint, body: ChangeEndpointBody) -> Endpoint:
    after = msgspec.structs.replace(before)
    for name in body.__struct_fields__:
        value = getattr(body, name)
        if value is not UNSET:
            setattr(after, name, value)
    if after.status == "ENABLED":
        after.disabled_reason = None
    elif before.status == "ENABLED":
        after.disabled_reason = "It was disabled through the API."
    return after


def _columns(settings: CreateEndpointBody | Endpoint) -> dict[Any, Any]:
    values = {name: getattr(settings, name) for name in _SETTINGS}
    return values | {"event_types": list(dict.fromkeys(settings.event_types)), "filters": to_text(settings.filters)}


def _to_endpoint(record: Mapping[str, Any]) -> Endpoint:
    times = {name: render(record[name]) for name in ("created_at", "updated_at")}
    fields = {
        "id": str(record["id"]),
        "filters": from_text(record["filters"]),
        "signing_time": record["signing_time"] or "host",
    }
    return Endpoint(**{**record, **times, **fields})


def _context(merchant_id: str, endpoint_id: str) -> str:
    return f"{merchant_id}/{endpoint_id}"
