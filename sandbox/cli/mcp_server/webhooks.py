"""Tools for webhook endpoints and their deliveries."""

import asyncio
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from psp_sandbox.client.models import Attempt, DeliveryWithAttempts, EventPattern
from sandbox.cli.mcp_server.results import Result, cut, plain
from sandbox.cli.mcp_server.tool import Calling, Limit, count, first, tool
from sandbox.domain.enumerations import DeliveryStatus, EndpointStatus, RetryProfile

_MOST_ATTEMPTS: Final = 10
EndpointId = Annotated[str, Field(description="The endpoint's id, from create_webhook_endpoint or list_webhook_endpoints.")]


@tool("Register a webhook endpoint")
async def create_webhook_endpoint(
    calling: Calling,
    url: Annotated[str, Field(description="Where to deliver webhooks, such as http://127.0.0.1:9000/webhooks.")],
    event_types: Annotated[
        list[EventPattern] | None, Field(description="Only these types, such as payout.failed or payout.*. Default: payout.*.")
    ] = None,
    signing: Annotated[
        Literal["v1", "v1a", "stripe", "github"], Field(description="How to sign: v1 and v1a follow Standard Webhooks.")
    ] = "v1",
    ordered: Annotated[bool, Field(description="A failing delivery holds back later events of the same payout.")] = False,
    retry_profile: Annotated[
        RetryProfile,
        Field(
            description="standard retries for 75 hours, as real providers do; fast for half a minute; server_errors as fast, "
            "but 3xx and 4xx are final."
        ),
    ] = "standard",
    show_secret: Annotated[
        bool, Field(description="Return the signing secret. Ask for it only if you must put it into the receiver.")
    ] = False,
) -> Result:
    """Register a URL that receives the merchant's events as signed webhooks from now on."""
    created = await calling.psp.webhook_endpoints.create(
        url, event_types=event_types, signing=signing, ordered=ordered, retry_profile=retry_profile
    )
    data: dict[str, Any] = plain(created)
    if not show_secret:
        data.pop("secret", None)
    return Result(f"Endpoint {created.id} receives webhooks at {created.url}.", {"endpoint": data})


@tool("List the webhook endpoints", reads=True)
async def list_webhook_endpoints(calling: Calling, limit: Limit = 20) -> Result:
    """List the webhook endpoints, newest first, with their event types, status, and why one was disabled."""
    found = await first(calling.psp.webhook_endpoints.list(limit=limit + 1), limit)
    return Result(count(found, "endpoint"), found)


@tool("Change a webhook endpoint")
async def update_webhook_endpoint(
    calling: Calling,
    endpoint_id: EndpointId,
    url: Annotated[str | None, Field(description="A new URL to deliver to.")] = None,
    event_types: Annotated[
        list[EventPattern] | None, Field(description="Only these types from now on, such as payout.failed or payout.*.")
    ] = None,
    status: Annotated[
        EndpointStatus | None, Field(description="DISABLED keeps new events back; ENABLED sends what is due.")
    ] = None,
    ordered: Annotated[
        bool | None, Field(description="Whether a failing delivery holds back later events of the same payout.")
    ] = None,
    retry_profile: Annotated[
        RetryProfile | None,
        Field(
            description="standard retries for 75 hours, fast for half a minute; "
            "server_errors as fast, but 3xx and 4xx are final."
        ),
    ] = None,
) -> Result:
    """Change a webhook endpoint, or disable or enable it. Omitted fields and the secret stay unchanged."""
    changed = await calling.psp.webhook_endpoints.change(
        endpoint_id, url=url, event_types=event_types, status=status, ordered=ordered, retry_profile=retry_profile
    )
    return Result(f"Endpoint {changed.id} is {changed.status}.", {"endpoint": changed})


@tool("Delete a webhook endpoint", destroys=True)
async def delete_webhook_endpoint(calling: Calling, endpoint_id: EndpointId) -> Result:
    """Delete a webhook endpoint. Its deliveries stay in the list, but cannot be sent any more."""
    await calling.psp.webhook_endpoints.delete(endpoint_id)
    return Result(f"Deleted {endpoint_id}.", {"deleted": endpoint_id})


@tool("List webhook deliveries", reads=True)
async def list_deliveries(
    calling: Calling,
    status: Annotated[DeliveryStatus | None, Field(description="Only deliveries with this status.")] = None,
    endpoint_id: Annotated[str | None, Field(description="Only deliveries to this endpoint.")] = None,
    event_id: Annotated[str | None, Field(description="Only deliveries of this event.")] = None,
    limit: Limit = 10,
) -> Result:
    """List webhook deliveries with their attempts, newest first: when each was made, what the receiver answered, why it failed.

    The deliveries of one payout are in get_payout.
    """
    psp = calling.psp
    found = await first(psp.deliveries.list(status=status, endpoint_id=endpoint_id, event_id=event_id, limit=limit + 1), limit)
    details = await asyncio.gather(*(psp.deliveries.get(item["id"]) for item in found["items"]))
    summary = count(found, "delivery").replace("deliverys", "deliveries")
    return Result(summary, found | {"items": [_delivery(detail) for detail in details]})


@tool("Send a webhook again")
async def resend_webhook(
    calling: Calling, delivery_id: Annotated[str, Field(description="The delivery's id, from list_deliveries or get_payout.")]
) -> Result:
    """Send a webhook delivery again, whatever its status, with the same webhook-id. Its retry schedule starts over."""
    delivery = await calling.psp.deliveries.resend(delivery_id)
    return Result(f"Delivery {delivery.id} of {delivery.event_type} is {delivery.status}.", {"delivery": delivery})


def _delivery(delivery: DeliveryWithAttempts) -> dict[str, Any]:
    """Return a delivery with its last attempts, and the request of the newest one."""
    found: dict[str, Any] = plain(delivery)
    newest = delivery.attempts[-1] if delivery.attempts else None
    request = newest and newest.request and {"headers": newest.request.headers, "body": cut(newest.request.body)}
    attempts = [_attempt(attempt) for attempt in delivery.attempts[-_MOST_ATTEMPTS:]]
    return found | {"attempts": attempts, "last_request": request}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    """Return what the receiver answered to an attempt, or why there is no answer."""
    return {
        "attempt": attempt.attempt,
        "at": attempt.at,
        "status": attempt.status,
        "response_body": None if attempt.response is None else cut(attempt.response.body),
        "error_class": attempt.error_class,
        "error": attempt.error,
        "fault": attempt.fault_kind,
        "milliseconds": attempt.duration_ms,
    }
