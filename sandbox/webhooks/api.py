"""`/api/v1/webhook-endpoints`, `/events` and `/webhook-deliveries`: parse, call the service, render."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import PAGE, delete, get, patch, post
from sandbox.http.paging import Page, window
from sandbox.http.request import Request
from sandbox.webhooks.endpoints.requests import (
    ChangeEndpointBody,
    CreateEndpointBody,
)
from sandbox.webhooks.endpoints.service import CreatedEndpoint, Endpoint, EndpointService

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
