"""`/api/v1/webhook-endpoints`, `/events` and `/webhook-deliveries`: parse, call the service, render."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandbox.domain.fields import EmptyBody, Uuid
from sandbox.domain.unit import CommandResult
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import DATED_PAGE, PAGE, delete, get, parameter, patch, post
from sandbox.http.paging import Page, selected, window
from sandbox.http.request import Request
from sandbox.webhooks.deliveries import (
    STATUSES,
    Delivery,
    DeliveryService,
    DeliveryWithAttempts,
    Event,
    EventWithDeliveries,
)
from sandbox.webhooks.endpoints.requests import (
    ChangeEndpointBody,
    CreateEndpointBody,
)
from sandbox.webhooks.endpoints.service import CreatedEndpoint, Endpoint, EndpointService
from sandbox.webhooks.explain import DeliveryExplainer
from sandbox.webhooks.explanation import DeliveryExplanation

_PSP_ROUTING: Final = "--events {event_types:list} --filter {filters:filters}"
_PSP_SETTINGS: Final = (
    f"{_PSP_ROUTING} --custom-signing {{custom_signing:file=signing.json}} --ordered/--unordered {{ordered:flag}}"
)
_LINKS: Final = {
    "get": ("get_webhook_endpoint", "endpoint_id"),
    "change": ("change_webhook_endpoint", "endpoint_id"),
    "delete": ("delete_webhook_endpoint", "endpoint_id"),
}


class EndpointApi:
    """The operations of webhook endpoints."""

    def __init__(self, endpoints: EndpointService) -> None:
        self._endpoints = endpoints

    def _check(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return self._endpoints.check(fields)

    @post(
        "/api/v1/webhook-endpoints",
        "Create a webhook endpoint",
        {201: CreatedEndpoint},
        CreateEndpointBody,
        errors=("INVALID_STATE",),
        links=_LINKS,
        check=_check,
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
    async def create_webhook_endpoint(self, request: Request, body: CreateEndpointBody) -> CommandResult:
        return await self._endpoints.create(request.context, body)

    @get(
        "/api/v1/webhook-endpoints",
        "List webhook endpoints, newest first",
        {200: list[Endpoint]},
        query=PAGE,
        psp="endpoints list",
        columns="id url event_types relayed status disabled_reason",
    )
    async def list_webhook_endpoints(self, request: Request) -> Page:
        return await self._endpoints.list(request.merchant_id, window(request.query))

    @get("/api/v1/webhook-endpoints/{endpoint_id}", "Get a webhook endpoint", {200: Endpoint}, psp="endpoints get")
    async def get_webhook_endpoint(self, request: Request, endpoint_id: Uuid) -> Endpoint:
        return await self._endpoints.get(request.merchant_id, endpoint_id)

    @patch(
        "/api/v1/webhook-endpoints/{endpoint_id}",
        "Change a webhook endpoint",
        {200: Endpoint},
        ChangeEndpointBody,
        example={"status": "ENABLED"},
        check=_check,
        description="Omitted fields keep their value; `filters: []` removes all filters. Deliveries due to a disabled endpoint "
        "wait until it is enabled; newer events are kept and can be recovered. An endpoint is disabled automatically if it "
        "responds with 410, or if an attempt fails and none has succeeded for 5 days of the merchant's time; `history` shows "
        "when and why. A change of `signing` keeps the secret, except to "
        "or from `v1a`: then the endpoint gets a new key, and `rotate-secret` shows the secret.",
        psp=f"endpoints update --target {{url}} {_PSP_SETTINGS}",
    )
    async def change_webhook_endpoint(self, request: Request, body: ChangeEndpointBody, endpoint_id: Uuid) -> CommandResult:
        return await self._endpoints.change(request.context, endpoint_id, body)

    @delete(
        "/api/v1/webhook-endpoints/{endpoint_id}",
        "Delete a webhook endpoint",
        {204: None},
        description="Its deliveries stay in the log. Pending deliveries become failed, and none can be resent.",
        psp="endpoints delete",
    )
    async def delete_webhook_endpoint(self, request: Request, endpoint_id: Uuid) -> CommandResult:
        return await self._endpoints.delete(request.context, endpoint_id)


class DeliveryApi:
    """The operations of events and their deliveries."""

    def __init__(self, deliveries: DeliveryService, explainer: DeliveryExplainer) -> None:
        self._deliveries = deliveries
        self._explainer = explainer

    @get(
        "/api/v1/events",
        "List events, newest first",
        {200: list[Event]},
        query=(
            *DATED_PAGE,
            parameter("payout_id", "Only events of this payout.", type="string", format="uuid"),
        ),
        description="Includes samples that were sent to test an endpoint. Like those of bulk credits, they have no payout_id.",
        psp="events list --payout {payout_id}",
        columns="id created_at type payout_id",
    )
    async def list_events(self, request: Request) -> Page:
        return await self._deliveries.events(request.merchant_id, window(request.query), request.query.get("payout_id"))

    @get("/api/v1/events/{event_id}", "Get an event and its deliveries", {200: EventWithDeliveries}, psp="events get")
    async def get_event(self, request: Request, event_id: Uuid) -> EventWithDeliveries:
        return await self._deliveries.event(request.merchant_id, event_id)

    @get(
        "/api/v1/webhook-deliveries",
        "List webhook deliveries, newest first",
        {200: list[Delivery]},
        query=(
            *DATED_PAGE,
            parameter("endpoint_id", "Only deliveries to this endpoint.", type="string", format="uuid"),
            parameter("event_id", "Only deliveries of this event.", type="string", format="uuid"),
            parameter("status", "Only deliveries in this state.", type="string", enum=list(STATUSES)),
        ),
        psp="deliveries list --endpoint {endpoint_id} --event {event_id}",
        columns="id created_at event_type endpoint_id status attempt_count next_attempt_at",
    )
    async def list_webhook_deliveries(self, request: Request) -> Page:
        query = request.query
        statuses = selected(query, "status", STATUSES)
        return await self._deliveries.list(
            request.merchant_id, window(query), statuses, query.get("endpoint_id"), query.get("event_id")
        )

    @get(
        "/api/v1/webhook-deliveries/{delivery_id}",
        "Get a delivery and its attempts",
        {200: DeliveryWithAttempts},
        description="At most the newest 100 attempts, oldest first.",
        psp="deliveries get",
    )
    async def get_webhook_delivery(self, request: Request, delivery_id: Uuid) -> DeliveryWithAttempts:
        return await self._deliveries.get(request.merchant_id, delivery_id)

    @get(
        "/api/v1/webhook-deliveries/{delivery_id}/explain",
        "Explain a delivery",
        {200: DeliveryExplanation},
        description="The path from the API call through the payout's change and its ledger transfer to each attempt, and why "
        "the next attempt is scheduled when it is. `summary` tells it in sentences.",
        psp="deliveries explain",
    )
    async def explain_webhook_delivery(self, request: Request, delivery_id: Uuid) -> DeliveryExplanation:
        return await self._explainer.explain(request.merchant_id, delivery_id)

    @post(
        "/api/v1/webhook-deliveries/{delivery_id}/resend",
        "Resend a webhook now",
        {200: Delivery},
        EmptyBody,
        errors=("INVALID_STATE",),
        description="If that fails, its retry schedule starts over. 409 if the endpoint is disabled or deleted.",
        psp="deliveries resend",
    )
    async def resend_webhook_delivery(self, request: Request, delivery_id: Uuid) -> CommandResult:
        return await self._deliveries.resend(request.context, delivery_id)
