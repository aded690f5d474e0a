"""Rows of webhook endpoints: read, insert, change and delete them, and show them as the API does."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from piccolo.columns import Column
from piccolo.query.methods.delete import Delete
from piccolo.query.methods.select import First, Select
from piccolo.query.methods.update import Update

from sandbox.domain.clock import render
from sandbox.domain.errors import Problem
from sandbox.domain.event_filters import Filter, from_text, to_text
from sandbox.domain.redaction import Address, Secret
from sandbox.webhooks.delivery.endpoint_health import StatusChange, add_to_history, history_from_text, history_to_text
from sandbox.webhooks.delivery.signer import decode_custom
from sandbox.webhooks.endpoints.requests import CreateEndpointBody, DialectEndpoint
from sandbox.webhooks.endpoints.tables import WebhookEndpoints
from sandbox.webhooks.signing.dialects import CustomSigning

SETTINGS: Final = CreateEndpointBody.__struct_fields__
"""The settings of an endpoint. Each is a field of the API and a column of the table."""
SHOWN: Final = tuple(
    getattr(WebhookEndpoints, name)
    for name in (
        "id",
        *SETTINGS,
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
    """The dialect that the endpoint was made in, with the settings that only it has; null for native endpoints."""
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


async def find_endpoint(merchant_id: str, endpoint_id: str) -> Endpoint:
    """Return an endpoint, read in the caller's transaction if there is one. Raises NOT_FOUND, and asyncpg's errors."""
    record = await _select_one(merchant_id, endpoint_id)
    if record is None:
        raise endpoint_not_found(endpoint_id)
    return to_endpoint(record)


def endpoint_not_found(endpoint_id: str) -> Problem:
    """Return the problem that the merchant has no such endpoint."""
    return Problem("NOT_FOUND", f"Webhook endpoint {endpoint_id} not found.")


def page_of_endpoints(merchant_id: str, before: str, since: str, limit: int) -> Select[WebhookEndpoints]:
    """Read a page of a merchant's endpoints, newest first."""
    e = WebhookEndpoints
    found = e.select(*SHOWN).where(e.merchant_id == merchant_id, e.id < before, e.id >= since)
    return found.order_by(e.id, ascending=False).limit(limit)


def ids_of_endpoints(merchant_id: str) -> Select[WebhookEndpoints]:
    """Read the ids of a merchant's endpoints."""
    return WebhookEndpoints.select(WebhookEndpoints.id).where(WebhookEndpoints.merchant_id == merchant_id)


def _select_one(merchant_id: str, endpoint_id: str) -> First:
    e = WebhookEndpoints
    return e.select(*SHOWN).where(e.merchant_id == merchant_id, e.id == endpoint_id).first()


def change_row(merchant_id: str, endpoint_id: str, values: dict[Column | str, Any], now: datetime) -> Update[WebhookEndpoints]:
    """Change columns of an endpoint."""
    e = WebhookEndpoints
    return e.update({**values, e.updated_at: now}).where(e.merchant_id == merchant_id, e.id == endpoint_id).returning(*SHOWN)


def disable_row(merchant_id: str, endpoint_id: str, reason: str, now: datetime) -> Update[WebhookEndpoints]:
    """Disable an endpoint."""
    e = WebhookEndpoints
    values: dict[Column | str, Any] = {e.status: "DISABLED", e.disabled_reason: reason, e.updated_at: now}
    return e.update(values).where(e.merchant_id == merchant_id, e.id == endpoint_id)


def delete_row(merchant_id: str, endpoint_id: str) -> Delete:
    """Delete an endpoint."""
    e = WebhookEndpoints
    return e.delete().where(e.merchant_id == merchant_id, e.id == endpoint_id)


def columns_of(settings: CreateEndpointBody | Endpoint) -> dict[Any, Any]:
    """Return the columns for an endpoint's settings."""
    values = {name: getattr(settings, name) for name in SETTINGS}
    custom = settings.custom_signing
    wire = settings.wire if isinstance(settings, Endpoint | DialectEndpoint) else None
    return values | {
        "wire": None if wire is None else msgspec.json.encode(wire).decode(),
        "event_types": list(dict.fromkeys(settings.event_types)),
        "filters": to_text(settings.filters),
        "custom_signing": None if custom is None else msgspec.json.encode(custom).decode(),
    }


def status_columns(before: Endpoint, after: Endpoint, now: datetime) -> dict[Any, Any]:
    """Return the columns for an endpoint's status and its history."""
    values: dict[Any, Any] = {"status": after.status, "disabled_reason": after.disabled_reason}
    if after.status != before.status:
        change = StatusChange(render(now), after.status, after.disabled_reason)
        values["status_history"] = history_to_text(add_to_history(before.history, change))
        values["failing_since"] = None
    return values


def to_endpoint(record: Mapping[str, Any]) -> Endpoint:
    """Return an endpoint from its row."""
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
