"""Create, read, change and delete webhook endpoints.

Every write holds the merchant's lock. Writing events holds it too, so an event never sees a half-changed endpoint.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET
from piccolo.columns import Column
from piccolo.query.methods.delete import Delete
from piccolo.query.methods.select import First, Select
from piccolo.query.methods.update import Update

from sandbox.domain.clock import render
from sandbox.domain.errors import Problem, invalid, invalid_fields
from sandbox.domain.event_filters import Filter, from_text, to_text
from sandbox.domain.redaction import Address, Secret
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.body_errors import FieldProblem
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.sealed_results import run_sealed
from sandbox.webhooks.delivery.endpoint_health import StatusChange, add_to_history, history_from_text, history_to_text
from sandbox.webhooks.delivery.paced_claims import end_waits
from sandbox.webhooks.delivery.signer import decode_custom, secret_columns, secret_context
from sandbox.webhooks.endpoints.requests import (
    ChangeEndpointBody,
    CreateEndpointBody,
    check_endpoint,
    dialect_errors,
    endpoint_errors,
)
from sandbox.webhooks.endpoints.tables import WebhookEndpoints
from sandbox.webhooks.outbound.address_guard import Network
from sandbox.webhooks.outbound.url_check import url_error
from sandbox.webhooks.signing.dialects import CustomSigning, secret_for, shares_secrets

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

MAX_ENDPOINTS: Final = 16
"""Maximum number of endpoints per merchant. Each event creates up to this many deliveries in its transaction."""
MAX_DELIVERIES_FAILED_PER_TRANSACTION: Final = 5000
"""Maximum number of deliveries that one transaction sets to FAILED. More would hold the merchant's lock too long."""

_SETTINGS: Final = CreateEndpointBody.__struct_fields__
"""The settings of an endpoint. Each is a field of the API and a column of the table."""
_SHOWN: Final = tuple(
    getattr(WebhookEndpoints, name)
    for name in (
        "id",
        *_SETTINGS,
        "public_key",
        "wire",
        "relayed",
        "status",
        "disabled_reason",
        "failing_since",
        "status_history",
        "created_at",
        "updated_at",
    )
)

_SQL: Final = read_statements(__name__)
_READ_UNUSED: Final = _SQL["read_unused"]
_READ_SECRET: Final = _SQL["read_secret"]
_END_DELIVERIES: Final = _SQL["end_deliveries"]


class Endpoint(msgspec.Struct, kw_only=True):
    """A webhook endpoint."""

    id: str
    url: Address
    event_types: list[str]
    filters: list[Filter]
    signing: str
    custom_signing: CustomSigning | None
    public_key: str | None
    """`whpk_` and base64, if `signing` is `v1a`: what a receiver verifies signatures with."""
    signing_time: str
    retry_profile: str
    ordered: bool
    rate_limit: int | None
    max_in_flight: int | None
    description: str
    wire: dict[str, Any] | None
    """The dialect that the endpoint was made in, and what was said there without a field of its own; null for most."""
    relayed: bool
    """Whether a listener posts its webhooks (`psp listen`), instead of the sandbox."""
    status: str
    disabled_reason: str | None
    failing_since: str | None
    """When the first attempt failed since the last success, in the merchant's time; null if the last attempt succeeded."""
    history: list[StatusChange]
    """The newest changes of `status`, oldest first, at most 20."""
    created_at: str
    updated_at: str


class CreatedEndpoint(Endpoint, kw_only=True):
    """A webhook endpoint with its secret. The API returns the secret only once.

    With `v1a` the secret is null, because receivers need the public key only.
    """

    secret: Secret | None


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

    async def create(
        self, context: RequestContext, body: CreateEndpointBody, wire: Mapping[str, Any] | None = None
    ) -> CommandResult:
        """Create an endpoint, in a dialect if `wire` names one.

        Responds with 201, the endpoint and its secret; so does a replay. Raises VALIDATION_ERROR.
        """
        check_endpoint(body, self._allowed)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            created = await self.create_in(conn, unit, body, wire=wire)
            return CommandResult(201, msgspec.json.encode(created), f"/api/v1/webhook-endpoints/{created.id}")

        return await run_sealed(self._work, self._box, context, action)

    async def create_in(
        self,
        conn: "PoolConnectionProxy[Any]",
        unit: UnitOfWork,
        body: CreateEndpointBody,
        *,
        relayed: bool = False,
        wire: Mapping[str, Any] | None = None,
    ) -> CreatedEndpoint:
        """Create an endpoint with a new secret in the caller's transaction. Raises the errors of `insert`."""
        # The first endpoint uses the webhook secret that was returned when the merchant was created.
        merchant_secret = await conn.fetchval(_READ_UNUSED, unit.merchant_id)
        secret = (
            secret_for(body.signing, unit.ids.random_bytes(32))
            if merchant_secret is None or not shares_secrets(body.signing, "v1")
            else self._box.open(merchant_secret, f"{unit.merchant_id}/webhook")
        )
        return _with_secret(await self.insert(unit, body, secret, relayed=relayed, wire=wire), secret)

    async def insert(
        self,
        unit: UnitOfWork,
        body: CreateEndpointBody,
        secret: str,
        *,
        relayed: bool = False,
        wire: Mapping[str, Any] | None = None,
    ) -> Endpoint:
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
            **secret_columns(self._box, unit.merchant_id, endpoint_id, secret),
            status="ENABLED",
            wire=_wire_text(wire),
            relayed=relayed or None,
            created_at=unit.now,
            updated_at=unit.now,
        )
        (record,) = await WebhookEndpoints.insert(row).returning(*_SHOWN)
        return _to_endpoint(record)

    async def list(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of endpoints, newest first."""
        async with connection(merchant_id):
            records = await _page(merchant_id, window.before, window.since, window.limit + 1)
        found = [_to_endpoint(record) for record in records]
        return page(found, window.limit, [endpoint.id for endpoint in found])

    async def get(self, merchant_id: str, endpoint_id: str) -> Endpoint:
        """Return an endpoint. Raises NOT_FOUND."""
        async with connection(merchant_id):
            return await find_endpoint(merchant_id, endpoint_id)

    async def change(
        self,
        context: RequestContext,
        endpoint_id: str,
        body: ChangeEndpointBody,
        wire: Mapping[str, Any] | None = None,
    ) -> CommandResult:
        """Change the fields that the body contains, and `wire` if it is given. Responds with 200 and the endpoint.

        Returns NOT_FOUND, stored under the key, for an unknown id, and raises it for an id that is not a UUID. Raises
        VALIDATION_ERROR.
        """
        check_endpoint(body, self._allowed)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            return CommandResult(200, msgspec.json.encode(await self.change_in(conn, unit, endpoint_id, body, wire)))

        return await self._work.run(context, action)

    async def change_in(
        self,
        conn: "PoolConnectionProxy[Any]",
        unit: UnitOfWork,
        endpoint_id: str,
        body: ChangeEndpointBody,
        wire: Mapping[str, Any] | None = None,
    ) -> Endpoint:
        """Change an endpoint in the caller's transaction, which must hold the merchant's lock. Raises NOT_FOUND."""
        before = await find_endpoint(unit.merchant_id, endpoint_id)
        # Deliveries to a disabled endpoint stay due but are not claimed. They continue once it is enabled again.
        after = _changed(before, body)
        values = _columns(after)
        if wire is not None:
            values["wire"] = _wire_text(wire)
        if body.status is not UNSET:  # otherwise a worker may be disabling it at this moment, without the merchant's lock
            values |= _status_columns(before, after, unit.now)
            unit.effects.add(Effect.WORK_DUE)  # so that workers stop sending to it, or continue
        if not shares_secrets(before.signing, after.signing):
            secret = secret_for(after.signing, unit.ids.random_bytes(32))
            values |= secret_columns(self._box, unit.merchant_id, endpoint_id, secret) | {"previous_secrets": None}
        (record,) = await change_row(unit.merchant_id, endpoint_id, values, unit.now)
        if before.ordered and not after.ordered:
            await end_waits(conn, unit.merchant_id, endpoint_id, unit.now)
            unit.effects.add(Effect.WORK_DUE)
        return _to_endpoint(record)

    async def reveal(self, conn: "PoolConnectionProxy[Any]", merchant_id: str, endpoint: Endpoint) -> CreatedEndpoint:
        """Return the endpoint with its secret. Raises SealedSecretError if it is sealed under another SANDBOX_SECRET_KEY."""
        sealed = await conn.fetchval(_READ_SECRET, merchant_id, endpoint.id)
        return _with_secret(endpoint, self._box.open(sealed, secret_context(merchant_id, endpoint.id)))

    async def delete(self, context: RequestContext, endpoint_id: str) -> CommandResult:
        """Delete an endpoint. Responds with 204. Returns NOT_FOUND, stored under the key, for an unknown id.

        Its deliveries stay in the log; pending ones become FAILED. Many pending deliveries take several transactions. If the
        process ends between two of them, the endpoint stays disabled, and another delete resumes the work.
        """

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, _: bytes | None) -> CommandResult:
            await find_endpoint(context.merchant_id, endpoint_id)
            if await end_deliveries(conn, unit, endpoint_id):
                await _disable(context.merchant_id, endpoint_id, "It is being deleted.", unit.now)
                return CommandResult(202, b"", provisional=True)
            await _delete(context.merchant_id, endpoint_id)
            return CommandResult(204, b"")

        # The loop terminates: new events arrive more slowly than pending deliveries are failed.
        return await self._work.run_resumable(context, action)


async def end_deliveries(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, endpoint_id: str) -> bool:
    """Set an endpoint's unfinished deliveries to FAILED. Return whether there may be more than one transaction can change."""
    limit = MAX_DELIVERIES_FAILED_PER_TRANSACTION
    failed = [
        await conn.execute(_END_DELIVERIES, unit.merchant_id, endpoint_id, limit, unit.now, status)
        for status in ("PENDING", "PAUSED")
    ]
    return f"INSERT 0 {limit}" in failed


async def find_endpoint(merchant_id: str, endpoint_id: str) -> Endpoint:
    """Return an endpoint, read in the caller's transaction if there is one. Raises NOT_FOUND, and asyncpg's errors."""
    record = await _select_one(merchant_id, endpoint_id)
    if record is None:
        raise endpoint_not_found(endpoint_id)
    return _to_endpoint(record)


def endpoint_not_found(endpoint_id: str) -> Problem:
    """Return the problem that the merchant has no such endpoint."""
    return Problem("NOT_FOUND", f"Webhook endpoint {endpoint_id} not found.")


def _page(merchant_id: str, before: str, since: str, limit: int) -> Select[WebhookEndpoints]:
    e = WebhookEndpoints
    found = e.select(*_SHOWN).where(e.merchant_id == merchant_id, e.id < before, e.id >= since)
    return found.order_by(e.id, ascending=False).limit(limit)


def _ids(merchant_id: str) -> Select[WebhookEndpoints]:
    return WebhookEndpoints.select(WebhookEndpoints.id).where(WebhookEndpoints.merchant_id == merchant_id)


def _select_one(merchant_id: str, endpoint_id: str) -> First:
    e = WebhookEndpoints
    return e.select(*_SHOWN).where(e.merchant_id == merchant_id, e.id == endpoint_id).first()


def change_row(merchant_id: str, endpoint_id: str, values: dict[Column | str, Any], now: datetime) -> Update[WebhookEndpoints]:
    """Change columns of an endpoint."""
    e = WebhookEndpoints
    return e.update({**values, e.updated_at: now}).where(e.merchant_id == merchant_id, e.id == endpoint_id).returning(*_SHOWN)


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


def _columns(settings: CreateEndpointBody | Endpoint) -> dict[Any, Any]:
    values = {name: getattr(settings, name) for name in _SETTINGS}
    custom = settings.custom_signing
    return values | {
        "event_types": list(dict.fromkeys(settings.event_types)),
        "filters": to_text(settings.filters),
        "custom_signing": None if custom is None else msgspec.json.encode(custom).decode(),
    }


def _wire_text(wire: Mapping[str, Any] | None) -> str | None:
    return None if wire is None else msgspec.json.encode(wire).decode()


def _status_columns(before: Endpoint, after: Endpoint, now: datetime) -> dict[Any, Any]:
    values: dict[Any, Any] = {"status": after.status, "disabled_reason": after.disabled_reason}
    if after.status != before.status:
        change = StatusChange(render(now), after.status, after.disabled_reason)
        values["status_history"] = history_to_text(add_to_history(before.history, change))
        values["failing_since"] = None
    return values


def _with_secret(endpoint: Endpoint, secret: str) -> CreatedEndpoint:
    return CreatedEndpoint(**msgspec.structs.asdict(endpoint), secret=secret if endpoint.public_key is None else None)


def _to_endpoint(record: Mapping[str, Any]) -> Endpoint:
    custom = record["custom_signing"]
    failing_since = record["failing_since"]
    fields = {
        "id": str(record["id"]),
        "filters": from_text(record["filters"]),
        "history": history_from_text(record["status_history"]),
        "custom_signing": None if custom is None else decode_custom(custom),
        "wire": None if record["wire"] is None else msgspec.json.decode(record["wire"]),
        "signing_time": record["signing_time"] or "host",
        "relayed": bool(record["relayed"]),
        "failing_since": None if failing_since is None else render(failing_since),
        "created_at": render(record["created_at"]),
        "updated_at": render(record["updated_at"]),
    }
    shown = {name: value for name, value in record.items() if name != "status_history"}
    return Endpoint(**{**shown, **fields})
