"""Webhook endpoints and deliveries."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.errors import Problem, invalid
from sandbox.domain.event_filters import CHANGE, Filter, NeFilter, change_of
from sandbox.domain.events import includes
from sandbox.domain.fields import Text500, Url, one_of
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.payout import Payout
from sandbox.domain.payout_states import EVENT_OF, PROCESSING, REINITIATED, TRANSITIONS
from sandbox.domain.redaction import Address, Secret
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import parameter
from sandbox.http.paging import MAX_LIMIT, PageWindow
from sandbox.http.request import Request
from sandbox.payouts.history import MAX_NUMBERED
from sandbox.server.dialects.dialect import Services
from sandbox.server.dialects.rendering import payout_event
from sandbox.server.dialects.safepay.declared import NAME, PAGE, operation, part_of
from sandbox.server.dialects.safepay.events import encode_event, event_type
from sandbox.server.dialects.safepay.ids import native, prefixed
from sandbox.server.dialects.safepay.mapping import MAPPING, is_change
from sandbox.server.dialects.safepay.objects import Envelope, Nothing, aggregator_of, seconds
from sandbox.webhooks.deliveries import STATUSES, Delivery, DeliveryWithAttempts
from sandbox.webhooks.delivery.retry_schedule import SERVER_ERRORS
from sandbox.webhooks.endpoints.requests import ChangeEndpointBody, DialectChange, DialectEndpoint
from sandbox.webhooks.endpoints.rows import CreatedEndpoint, Endpoint
from sandbox.webhooks.endpoints.secrets import RotatedSecret, RotateSecretBody
from sandbox.webhooks.endpoints.service import MAX_ENDPOINTS

_encode: Final = msgspec.json.Encoder().encode
_FILTERS: Final[list[Filter]] = [
    NeFilter(CHANGE, change_of(previous, status))
    for previous, status in TRANSITIONS
    if MAPPING.states[status].event and not is_change(previous, status)
]
"""What endpoints do not get although they get the native type."""
_KNOWN: Final = (*MAPPING.documented["events"], *MAPPING.documented["other_events"])
WIRE_TYPES: Final[Mapping[str, str]] = {str(name): event_type(state) for state, name in EVENT_OF.items()} | {
    REINITIATED: event_type("PENDING")
}
"""Native event type → wire event type; empty if the event is not sent."""
_PATTERN: Final = r"^([a-z]+\.)?([a-z_]+|\*)\Z"
_Types = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=64, pattern=_PATTERN)]], msgspec.Meta(min_length=1, max_length=32)
]
_EXAMPLE: Final = {"url": "http://127.0.0.1:9000/webhooks", "event_types": ["payment.*"]}
_IDS: Final = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 20}
_STATUSES: Final = [*MAPPING.documented["deliveries"], "WD_FAILED"]
"""Safepay documents the last one, but gives it to no delivery."""
EventAmount = Literal["paisa", "rupees"]


class CreateWebhookBody(msgspec.Struct, kw_only=True):
    """The body of `POST /webhooks`. Two members are ours.

    `sandbox_event_amount` is the unit of the amount in events; `sandbox_received_event` says whether there is one on entering
    `P_RECEIVED`.
    """

    url: Url
    event_types: _Types
    description: Text500 = ""
    enabled: bool = True
    sandbox_event_amount: EventAmount = "paisa"
    sandbox_received_event: bool = True


class ChangeWebhookBody(msgspec.Struct, kw_only=True):
    """The body of `PUT /webhooks/{webhook_id}`. Omitted members keep their value."""

    url: Url | UnsetType = UNSET
    event_types: _Types | UnsetType = UNSET
    description: Text500 | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    sandbox_event_amount: EventAmount | UnsetType = UNSET
    sandbox_received_event: bool | UnsetType = UNSET


class Webhook(msgspec.Struct, kw_only=True):
    """An endpoint."""

    token: str
    aggregator_id: str
    url: Address
    description: str
    enabled: bool
    event_filter_json: str
    secret_version: int
    created_at: str
    updated_at: str
    secret_rotated_at: str


class WebhookOnly(msgspec.Struct):
    """An endpoint without its secret."""

    endpoint: Webhook


class NewWebhook(msgspec.Struct):
    """An endpoint and its secret, base64 of 32 bytes, which is shown only here."""

    endpoint: Webhook
    secret: Secret


class RotatedWebhook(NewWebhook):
    """An endpoint and its new secret. The old one does not sign any more."""

    rotated_at: str


class Webhooks(msgspec.Struct):
    """All endpoints of the dialect."""

    endpoints: list[Webhook]
    count: str


class WireDelivery(msgspec.Struct, kw_only=True):
    """A delivery. `payload_json` is empty in lists."""

    token: str
    endpoint_token: str
    aggregator_id: str
    event_id: str
    type: Annotated[str, one_of(MAPPING.documented["events"])]
    payload_json: str = ""
    status: Annotated[str, one_of(MAPPING.documented["deliveries"])]
    attempts: int
    last_error: str | None
    next_attempt_at: str | None
    created_at: str
    delivered_at: str | None


class WireDeliveries(msgspec.Struct):
    """Part of a list. `count` is the length of the whole list, up to 10100."""

    deliveries: list[WireDelivery]
    count: str


class WebhookApi:
    """The operations on endpoints and deliveries."""

    def __init__(self, services: Services) -> None:
        self._endpoints = services.endpoints
        self._secrets = services.secrets
        self._deliveries = services.deliveries

    @operation("POST", "/webhooks", "Create an endpoint", NewWebhook, CreateWebhookBody, example=_EXAMPLE)
    async def create_webhook(self, request: Request, aggregator_id: str, body: CreateWebhookBody) -> CommandResult:
        _require_known(body.event_types)
        wanted = DialectEndpoint(
            url=body.url,
            description=body.description,
            event_types=_native_types(body.event_types, body.sandbox_received_event),
            filters=_FILTERS,
            signing=NAME,
            retry_profile=SERVER_ERRORS,
            wire={
                "dialect": NAME,
                "event_types": body.event_types,
                "event_amount": body.sandbox_event_amount,
                "received_event": body.sandbox_received_event,
                "secret_version": 1,
            },
        )
        result = await self._endpoints.create_webhook_endpoint(request.context, wanted)
        if result.status >= 400:
            return result
        created: Endpoint = msgspec.json.decode(result.body, type=CreatedEndpoint)
        secret = created.secret if isinstance(created, CreatedEndpoint) else None
        if not body.enabled:
            result = await self._endpoints.change_webhook_endpoint(
                request.context, created.id, ChangeEndpointBody(status="DISABLED")
            )
            created = msgspec.json.decode(result.body, type=Endpoint)
        return _ok(NewWebhook(_webhook(request.merchant_id, created), _shown(secret)))

    @operation("GET", "/webhooks", "List endpoints, newest first", Webhooks, query=PAGE)
    async def list_webhooks(self, request: Request, aggregator_id: str) -> Envelope[Webhooks]:
        limit, offset = part_of(request.query)
        page = await self._endpoints.list_webhook_endpoints(request.merchant_id, PageWindow(MAX_ENDPOINTS, MAX_ID, MIN_ID))
        found = [_webhook(request.merchant_id, endpoint) for endpoint in page.data if _is_ours(endpoint)]
        return Envelope(Webhooks(found[offset : offset + limit], str(len(found))))

    @operation("GET", "/webhooks/{webhook_id}", "Get an endpoint", WebhookOnly)
    async def get_webhook(self, request: Request, aggregator_id: str, webhook_id: str) -> Envelope[WebhookOnly]:
        return Envelope(WebhookOnly(_webhook(request.merchant_id, await self._find(request, webhook_id))))

    @operation(
        "PUT", "/webhooks/{webhook_id}", "Change an endpoint", WebhookOnly, ChangeWebhookBody, example={"enabled": False}
    )
    async def change_webhook(
        self, request: Request, aggregator_id: str, webhook_id: str, body: ChangeWebhookBody
    ) -> CommandResult:
        found = await self._find(request, webhook_id)
        wire = dict(found.wire or {})
        change = DialectChange(url=body.url, description=body.description, wire=wire)
        if body.event_types is not UNSET:
            _require_known(body.event_types)
            wire["event_types"] = body.event_types
        if body.sandbox_event_amount is not UNSET:
            wire["event_amount"] = body.sandbox_event_amount
        if body.sandbox_received_event is not UNSET:
            wire["received_event"] = body.sandbox_received_event
        change.event_types = _native_types(wire.get("event_types", []), wire.get("received_event", True))
        if body.enabled is not UNSET:
            change.status = "ENABLED" if body.enabled else "DISABLED"
        result = await self._endpoints.change_webhook_endpoint(request.context, found.id, change)
        if result.status >= 400:
            return result
        if body.enabled is False:
            await self._endpoints.end_webhook_deliveries(request.context, found.id)
        return _ok(WebhookOnly(_webhook(request.merchant_id, msgspec.json.decode(result.body, type=Endpoint))))

    @operation("DELETE", "/webhooks/{webhook_id}", "Delete an endpoint", Nothing)
    async def delete_webhook(self, request: Request, aggregator_id: str, webhook_id: str) -> CommandResult:
        found = await self._find(request, webhook_id)
        result = await self._endpoints.delete_webhook_endpoint(request.context, found.id)
        return result if result.status >= 400 else _ok(Nothing())

    @operation("PUT", "/webhooks/{webhook_id}/rotate", "Replace an endpoint's secret", RotatedWebhook)
    async def rotate_webhook(self, request: Request, aggregator_id: str, webhook_id: str) -> CommandResult:
        found = await self._find(request, webhook_id)
        result = await self._secrets.rotate_webhook_secret(request.context, found.id, RotateSecretBody(grace_seconds=0))
        if result.status >= 400:
            return result
        rotated = msgspec.json.decode(result.body, type=RotatedSecret)
        wire = dict(found.wire or {})
        wire |= {"secret_version": wire.get("secret_version", 1) + 1, "secret_rotated_at": rotated.previous_expires_at}
        result = await self._endpoints.change_webhook_endpoint(request.context, found.id, DialectChange(wire=wire))
        if result.status >= 400:
            return result
        shown = _webhook(request.merchant_id, msgspec.json.decode(result.body, type=Endpoint))
        return _ok(RotatedWebhook(shown, _shown(rotated.secret), seconds(rotated.previous_expires_at)))

    @operation(
        "GET", "/webhooks/{webhook_id}/deliveries", "List an endpoint's deliveries, newest first", WireDeliveries,
        query=(
            *PAGE,
            parameter("type", "Only deliveries of this event type."),
            parameter("event_id", "Only the deliveries of these events.", **_IDS),
            parameter("delivery_id", "Only these deliveries.", **_IDS),
            parameter("status", "Only deliveries in this status.", type="string", enum=_STATUSES),
        ),
    )  # fmt: skip
    async def list_webhook_deliveries(self, request: Request, aggregator_id: str, webhook_id: str) -> Envelope[WireDeliveries]:
        found = await self._find(request, webhook_id)
        limit, offset = part_of(request.query)
        deliveries = await self._all_deliveries(request.merchant_id, found.id, request.query)
        shown = [await self._delivery(request.merchant_id, one) for one in deliveries[offset : offset + limit]]
        return Envelope(WireDeliveries(shown, str(len(deliveries))))

    @operation("GET", "/webhooks/{webhook_id}/deliveries/{delivery_id}", "Get a delivery", WireDelivery)
    async def get_webhook_delivery(
        self, request: Request, aggregator_id: str, webhook_id: str, delivery_id: str
    ) -> Envelope[WireDelivery]:
        merchant_id = request.merchant_id
        endpoint, id_ = await self._find(request, webhook_id), native("whd", delivery_id)
        with _known("delivery_id"):
            found = None if id_ is None else await self._deliveries.get_webhook_delivery(merchant_id, id_)
            if found is None or found.endpoint_id != endpoint.id:
                raise Problem("NOT_FOUND")
        shown = await self._delivery(merchant_id, found)
        event = await self._deliveries.get_event(merchant_id, found.event_id)
        payout = msgspec.json.decode(event.data, type=Payout)
        described = await payout_event(merchant_id, event.id, event.type, event.timestamp, payout, endpoint.wire or {})
        shown.payload_json = encode_event(described).decode()
        return Envelope(shown)

    async def _find(self, request: Request, token: str) -> Endpoint:
        endpoint_id, merchant_id = native("wh", token), request.merchant_id
        with _known("webhook_id"):
            found = None if endpoint_id is None else await self._endpoints.get_webhook_endpoint(merchant_id, endpoint_id)
            if found is None or not _is_ours(found):
                raise Problem("NOT_FOUND")
        return found

    async def _all_deliveries(self, merchant_id: str, endpoint_id: str, query: Mapping[str, str]) -> Sequence[Delivery]:
        """Return the endpoint's deliveries that pass the filters, at most MAX_NUMBERED, read by cursor."""
        statuses = [name for name in STATUSES if query.get("status", MAPPING.deliveries[name]) == MAPPING.deliveries[name]]
        wanted = {"status": ",".join(statuses), "endpoint_id": endpoint_id}
        before, found = MAX_ID, list[Delivery]()
        if not statuses:
            return []
        events = _named(query, "event_id", "txnlog")
        if events is not None and len(events) == 1:
            wanted["event_id"] = next(iter(events))
        while len(found) < MAX_NUMBERED:
            page = await self._deliveries.list_webhook_deliveries(merchant_id, PageWindow(MAX_LIMIT, before, MIN_ID), wanted)
            found += [one for one in page.data if _passes(one, query)]
            if not page.has_more:
                break
            before = page.data[-1].id
        return found[:MAX_NUMBERED]

    async def _delivery(self, merchant_id: str, one: Delivery) -> WireDelivery:
        error, has_ended = None, one.status == "SUCCEEDED"
        if not has_ended and one.attempt_count:
            detail = (
                one
                if isinstance(one, DeliveryWithAttempts)
                else await self._deliveries.get_webhook_delivery(merchant_id, one.id)
            )
            last = detail.attempts[-1]
            error = f"status {last.status}" if last.status is not None else last.error
        return WireDelivery(
            token=prefixed("whd", one.id),
            endpoint_token=prefixed("wh", one.endpoint_id),
            aggregator_id=aggregator_of(merchant_id),
            event_id=prefixed("txnlog", one.event_id),
            type=WIRE_TYPES[one.event_type],
            status=MAPPING.deliveries[one.status],
            attempts=one.attempt_count,
            last_error=error,
            next_attempt_at=None if one.next_attempt_at is None else seconds(one.next_attempt_at),
            created_at=seconds(one.created_at),
            delivered_at=seconds(one.updated_at) if has_ended else None,
        )


@contextmanager
def _known(name: str) -> Iterator[None]:
    """Raise VALIDATION_ERROR in place of NOT_FOUND: webhooks have no documented 404."""
    try:
        yield
    except Problem as problem:
        raise (invalid(name, "is unknown") if problem.code == "NOT_FOUND" else problem) from None


def _ok(data: Any) -> CommandResult:
    return CommandResult(200, _encode(Envelope(data)))


def _shown(secret: str | None) -> str:
    return (secret or "").removeprefix("whsec_")


def _is_ours(endpoint: Endpoint) -> bool:
    return (endpoint.wire or {}).get("dialect") == NAME


def _passes(one: Delivery, query: Mapping[str, str]) -> bool:
    wire_type = WIRE_TYPES.get(one.event_type, "")
    if not wire_type or query.get("type", wire_type) != wire_type:
        return False
    deliveries, events = _named(query, "delivery_id", "whd"), _named(query, "event_id", "txnlog")
    return (deliveries is None or one.id in deliveries) and (events is None or one.event_id in events)


def _named(query: Mapping[str, str], name: str, prefix: str) -> frozenset[str] | None:
    """Return the native ids in a parameter that may be repeated; None if it is not given."""
    if name not in query:
        return None
    return frozenset(id_ for text in query[name].split(",") if (id_ := native(prefix, text)) is not None)


def _require_known(patterns: Sequence[str]) -> None:
    """Raise VALIDATION_ERROR for a pattern that no documented event type matches."""
    for place, pattern in enumerate(patterns):
        if not any(includes([pattern], name) for name in _KNOWN):
            raise invalid(f"event_types[{place}]", "must be an event type, or end in a wildcard such as payment.*")


def _native_types(patterns: Sequence[str], sends_received: bool) -> list[str]:
    """Return the native types that an endpoint gets; the guessed event of `P_RECEIVED` only if it is wanted."""
    wanted = [name for name, wire_type in WIRE_TYPES.items() if wire_type and includes(patterns, wire_type)]
    return [name for name in wanted if sends_received or name != EVENT_OF[PROCESSING]]


def _webhook(merchant_id: str, endpoint: Endpoint) -> Webhook:
    wire = endpoint.wire or {}
    return Webhook(
        token=prefixed("wh", endpoint.id),
        aggregator_id=aggregator_of(merchant_id),
        url=endpoint.url,
        description=endpoint.description,
        enabled=endpoint.status == "ENABLED",
        event_filter_json=_encode(wire.get("event_types", [])).decode(),
        secret_version=wire.get("secret_version", 1),
        created_at=seconds(endpoint.created_at),
        updated_at=seconds(endpoint.updated_at),
        secret_rotated_at=seconds(wire.get("secret_rotated_at", endpoint.created_at)),
    )
