"""The log of events, each with its webhook deliveries."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Iterator
from datetime import datetime

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call, query, segment
from psp_sandbox.client.models.events import Event, EventWithDeliveries


class EventsApi:
    """The log of events, each with its webhook deliveries."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(
        self,
        *,
        limit: int | None = None,
        payout_id: str | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
    ) -> Iterator[Event]:
        """List events, newest first.

        Includes samples that were sent to test an endpoint. Like those of bulk credits, they have no payout_id.

        Requests each page when it is needed; `limit` is the number of items per page.

        payout_id: Only events of this payout.
        created_from: Only items created at or after this time.
        created_to: Only items created before this time.
        """
        return self._caller.pages(
            Call(
                Event,
                "GET",
                "/api/v1/events",
                query=query({"limit": limit, "payout_id": payout_id, "created_from": created_from, "created_to": created_to}),
            )
        )

    def get(self, event_id: str) -> EventWithDeliveries:
        """Get an event and its deliveries.

        Raises NotFound.
        """
        return self._caller.send(Call(EventWithDeliveries, "GET", f"/api/v1/events/{segment(event_id)}"))
