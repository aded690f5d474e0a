"""Deliveries of webhooks and their attempts."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call, given, new_key, query, segment
from psp_sandbox.client.models.deliveries import DeliveryExplanation, DeliveryWithAttempts
from psp_sandbox.client.models.shared import Delivery


class DeliveriesApi:
    """Deliveries of webhooks and their attempts."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(
        self,
        *,
        limit: int | None = None,
        endpoint_id: str | None = None,
        event_id: str | None = None,
        status: Literal["PENDING", "SUCCEEDED", "FAILED", "PAUSED"] | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
    ) -> Iterator[Delivery]:
        """List webhook deliveries, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.

        endpoint_id: Only deliveries to this endpoint.
        event_id: Only deliveries of this event.
        status: Only deliveries in this state.
        created_from: Only items created at or after this time.
        created_to: Only items created before this time.
        """
        return self._caller.pages(
            Call(
                Delivery,
                "GET",
                "/api/v1/webhook-deliveries",
                query=query(
                    {
                        "limit": limit,
                        "endpoint_id": endpoint_id,
                        "event_id": event_id,
                        "status": status,
                        "created_from": created_from,
                        "created_to": created_to,
                    }
                ),
            )
        )

    def get(self, delivery_id: str) -> DeliveryWithAttempts:
        """Get a delivery and its attempts.

        At most the newest 100 attempts, oldest first.

        Raises NotFound.
        """
        return self._caller.send(Call(DeliveryWithAttempts, "GET", f"/api/v1/webhook-deliveries/{segment(delivery_id)}"))

    def explain(self, delivery_id: str) -> DeliveryExplanation:
        """Explain a delivery.

        The path from the API call through the payout's change and its ledger transfer to each attempt, and why the next
        attempt is scheduled when it is. `summary` tells it in sentences.

        Raises NotFound.
        """
        return self._caller.send(Call(DeliveryExplanation, "GET", f"/api/v1/webhook-deliveries/{segment(delivery_id)}/explain"))

    def resend(self, delivery_id: str, *, idempotency_key: str | None = None) -> Delivery:
        """Resend a webhook now.

        If that fails, its retry schedule starts over. 409 if the endpoint is disabled or deleted.

        Raises NotFound, InvalidState.
        """
        return self._caller.send(
            Call(
                Delivery,
                "POST",
                f"/api/v1/webhook-deliveries/{segment(delivery_id)}/resend",
                body=given({}),
                idempotency_key=idempotency_key or new_key(),
            )
        )
