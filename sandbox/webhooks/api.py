"""`/api/v1/webhook-endpoints`, `/events` and `/webhook-deliveries`: parse, call the service, render."""

from typing import Final, TypeVar

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.domain.body import Check
from sandbox.domain.errors import Problem
from sandbox.domain.fields import EmptyBody
from sandbox.domain.unit import IdempotencyKey
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CREATED_FROM, CREATED_TO, CURSOR, LIMIT, Operation, parameter
from sandbox.http.paging import choice, query, uuid_param, window
from sandbox.webhooks.deliveries import (
    STATUSES,
    Delivery,
    DeliveryService,
    DeliveryWithAttempts,
    Event,
    EventWithDeliveries,
)
from sandbox.webhooks.endpoints import CreatedEndpoint, Endpoint, EndpointService
from sandbox.webhooks.requests import ChangeEndpointBody, CreateEndpointBody, explained

_Body = TypeVar("_Body", CreateEndpointBody, ChangeEndpointBody)

_SEE: Final = {
    "get": ("get_webhook_endpoint", "endpoint_id"),
    "change": ("change_webhook_endpoint", "endpoint_id"),
    "delete": ("delete_webhook_endpoint", "endpoint_id"),
}

_CREATE: Final = Operation(
    "Create a webhook endpoint", {201: CreatedEndpoint}, CreateEndpointBody,
    errors=("INVALID_STATE",), idempotency="required", links=_SEE,
    example={"url": "https://example.com/webhooks", "event_types": ["payout.*"]},
    description="The secret is returned only here. At most 16 per merchant. An address that webhooks must not be "
    "delivered to is refused. Filters, ordering, limits and signatures other than `v1` are not supported yet and are "
    "refused.",
)  # fmt: skip
_CHANGE: Final = Operation(
    "Change a webhook endpoint", {200: Endpoint}, ChangeEndpointBody, errors=("NOT_FOUND",),
    idempotency="required", example={"status": "ENABLED"},
    description="Omitted fields keep their value. Deliveries due to a disabled endpoint wait until it is "
    "enabled; newer events are kept and can be resent.",
)  # fmt: skip
_LIST_EVENTS: Final = Operation(
    "List events, newest first", {200: list[Event]},
    query=(
        LIMIT, CURSOR, parameter("payout_id", "Only events of this payout.", type="string", format="uuid"),
        CREATED_FROM, CREATED_TO,
    ),
)  # fmt: skip
_LIST_DELIVERIES: Final = Operation(
    "List webhook deliveries, newest first", {200: list[Delivery]},
    query=(
        LIMIT, CURSOR,
        parameter("endpoint_id", "Only deliveries to this endpoint.", type="string", format="uuid"),
        parameter("event_id", "Only deliveries of this event.", type="string", format="uuid"),
        parameter("status", "Only deliveries in this state.", type="string", enum=list(STATUSES)),
        CREATED_FROM, CREATED_TO,
    ),
)  # fmt: skip
_RESEND: Final = Operation(
    "Resend a webhook now", {200: Delivery}, EmptyBody, errors=("NOT_FOUND", "INVALID_STATE"),
    idempotency="required",
    description="If that fails, its retry schedule starts over. 409 if the endpoint is disabled or deleted.",
)  # fmt: skip


def webhooks_router(gate: RequestGuard, endpoints: EndpointService, deliveries: DeliveryService) -> Router:
    """The routes of webhook endpoints, events and deliveries."""
    return Router(
        "/api/v1",
        route_handlers=[
            _endpoints_router(gate, endpoints),
            _events_router(gate, deliveries),
            _log_router(gate, deliveries),
        ],
    )


def _endpoints_router(gate: RequestGuard, service: EndpointService) -> Router:
    create_body = msgspec.json.Decoder(CreateEndpointBody)
    change_body = msgspec.json.Decoder(ChangeEndpointBody)

    @post("/", operation_id="create_webhook_endpoint", opt={"operation": _CREATE})
    async def create_webhook_endpoint(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await _parse(gate, request, create_body, service.check)
        return answered(await service.create(gate.context(request, key), parsed))

    @get(
        "/", operation_id="list_webhook_endpoints",
        opt={"operation": Operation("List webhook endpoints, newest first", {200: list[Endpoint]},
             query=(LIMIT, CURSOR))},
    )  # fmt: skip
    async def list_webhook_endpoints(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        part = window(query(request, ("limit", "cursor")))
        return ok(await service.list(caller.merchant_id, part))

    @get(
        "/{endpoint_id:str}", operation_id="get_webhook_endpoint",
        opt={"operation": Operation("Get a webhook endpoint", {200: Endpoint}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_webhook_endpoint(request: HttpRequest, endpoint_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id, endpoint_id))

    @patch("/{endpoint_id:str}", operation_id="change_webhook_endpoint", opt={"operation": _CHANGE})
    async def change_webhook_endpoint(request: HttpRequest, endpoint_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await _parse(gate, request, change_body, service.check)
        return answered(await service.change(gate.context(request, key), endpoint_id, parsed))

    @delete(
        "/{endpoint_id:str}", operation_id="delete_webhook_endpoint", status_code=200,
        opt={"operation": Operation("Delete a webhook endpoint", {204: None}, errors=("NOT_FOUND",), idempotency="optional",
             description="Its deliveries stay in the log. Those still to be sent become failed, and none can be resent.")},
    )  # fmt: skip
    async def delete_webhook_endpoint(request: HttpRequest, endpoint_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        key = await gate.optional_key(request)
        return answered(await service.delete(gate.context(request, key), endpoint_id))

    return Router(
        "/webhook-endpoints",
        route_handlers=[
            create_webhook_endpoint, list_webhook_endpoints, get_webhook_endpoint, change_webhook_endpoint,
            delete_webhook_endpoint,
        ],
    )  # fmt: skip


async def _parse(
    gate: RequestGuard, request: HttpRequest, decoder: "msgspec.json.Decoder[_Body]", check: Check
) -> tuple[_Body, IdempotencyKey | None]:
    try:
        return await gate.parse(request, decoder, check=check)
    except Problem as problem:
        raise explained(problem) from None


def _events_router(gate: RequestGuard, service: DeliveryService) -> Router:
    @get("/", operation_id="list_events", opt={"operation": _LIST_EVENTS})
    async def list_events(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "payout_id", "created_from", "created_to"))
        payout_id = uuid_param(params, "payout_id")
        return ok(await service.events(caller.merchant_id, window(params), payout_id))

    @get(
        "/{event_id:str}", operation_id="get_event",
        opt={"operation": Operation("Get an event and its deliveries", {200: EventWithDeliveries},
             errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_event(request: HttpRequest, event_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.event(caller.merchant_id, event_id))

    return Router("/events", route_handlers=[list_events, get_event])


def _log_router(gate: RequestGuard, service: DeliveryService) -> Router:
    empty_body = msgspec.json.Decoder(EmptyBody)

    @get("/", operation_id="list_webhook_deliveries", opt={"operation": _LIST_DELIVERIES})
    async def list_webhook_deliveries(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "endpoint_id", "event_id", "status", "created_from", "created_to"))
        endpoint_id, event_id = uuid_param(params, "endpoint_id"), uuid_param(params, "event_id")
        statuses = choice(params, "status", STATUSES)
        return ok(await service.list(caller.merchant_id, window(params), statuses, endpoint_id, event_id))

    @get(
        "/{delivery_id:str}", operation_id="get_webhook_delivery",
        opt={"operation": Operation("Get a delivery and its attempts", {200: DeliveryWithAttempts},
             errors=("NOT_FOUND",), description="At most the newest 100 attempts, oldest first.")},
    )  # fmt: skip
    async def get_webhook_delivery(request: HttpRequest, delivery_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id, delivery_id))

    @post(
        "/{delivery_id:str}/resend", operation_id="resend_webhook_delivery", opt={"operation": _RESEND}, status_code=200
    )  # fmt: skip
    async def resend_webhook_delivery(request: HttpRequest, delivery_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        _, key = await gate.parse(request, empty_body, body_required=False)
        return answered(await service.resend(gate.context(request, key), delivery_id))

    return Router(
        "/webhook-deliveries", route_handlers=[list_webhook_deliveries, get_webhook_delivery, resend_webhook_delivery]
    )
