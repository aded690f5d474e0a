"""Try a webhook endpoint: preview which recent events it would have received, and send it a sample."""

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from sandbox.domain.clock import render
from sandbox.domain.errors import Problem, invalid_fields
from sandbox.domain.event_filters import first_unmet, to_text
from sandbox.domain.event_samples import sample
from sandbox.domain.events import includes
from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.operation import post
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.claim import RESERVE_NO_IDS
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.webhooks.deliveries import Delivery
from sandbox.webhooks.endpoints.requests import PreviewBody, SendSampleBody, event_type_errors
from sandbox.webhooks.endpoints.rows import find_endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence


IS_SAMPLE: Final = "payout_id IS NULL AND cause = 'api'"
"""The condition on a row of `events` that it is a sample: every real event without a payout is caused by a worker."""

_SQL: Final = read_statements(__name__, is_sample=IS_SAMPLE)


class EventPreview(msgspec.Struct):
    """A recent event, and whether the endpoint would have received it."""

    event_id: str
    type: str
    matches: bool
    reason: str
    """Why it would, or which condition does not hold."""


class Preview(msgspec.Struct):
    """The merchant's most recent events, newest first."""

    data: list[EventPreview]


_PSP_ROUTING: Final = "--events {event_types:list} --filter {filters:filters}"


class PreviewService:
    """Previews an endpoint's events, and sends samples."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work

    @post(
        "/api/v1/webhook-endpoints/{endpoint_id}/preview",
        "Preview which recent events an endpoint would have received",
        {200: Preview},
        PreviewBody,
        takes_turns=True,
        check=event_type_errors,
        example={"filters": [{"field": "data.amount", "op": "gte", "value": 1000}], "limit": 20},
        description="Checks the most recent events against `event_types` and `filters`; by default those of the endpoint. "
        "`reason` is the first condition that does not hold. Nothing is sent or changed, so it can be called before a PATCH.",
        psp=f"endpoints preview {_PSP_ROUTING}",
        columns="event_id type matches reason",
    )
    async def preview_webhook_endpoint(self, context: RequestContext, endpoint_id: Uuid, body: PreviewBody) -> CommandResult:
        """Respond with 200 and the most recent events. Fields that the body omits are the endpoint's own.

        Returns NOT_FOUND, stored under the key, for an unknown id, and raises it for an id that is not a UUID. Raises
        VALIDATION_ERROR.
        """
        errors = event_type_errors({"event_types": body.event_types})
        if errors:
            raise invalid_fields(errors)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            endpoint = await find_endpoint(context.merchant_id, endpoint_id)
            event_types = endpoint.event_types if body.event_types is UNSET else body.event_types
            filters = to_text(endpoint.filters if body.filters is UNSET else body.filters)
            found = []
            for record in await conn.fetch(_SQL["recent"], context.merchant_id, body.limit):
                obstacle = (
                    "it is a sample, which only the endpoint under test receives"
                    if record["is_sample"]
                    else obstacle_to(record["type"], record["body"], event_types, filters)
                )
                reason = _reason_to_send(record["type"], filters) if obstacle is None else obstacle
                found.append(EventPreview(record["id"], record["type"], obstacle is None, reason))
            return CommandResult(200, msgspec.json.encode(Preview(found)))

        return await self._work.run(context, action, RESERVE_NO_IDS)

    @post(
        "/api/v1/webhook-endpoints/{endpoint_id}/test",
        "Send a sample event to an endpoint",
        {200: Delivery},
        SendSampleBody,
        errors=("INVALID_STATE",),
        links={"delivery": ("get_webhook_delivery", "delivery_id")},
        example={"event_type": "payout.succeeded"},
        description="Sends it now, like any other event: signed, retried and in the delivery log. The endpoint receives it "
        "whatever its `event_types` and `filters` are. Its payout does not exist and no money moves; its metadata is "
        '`{"sample": "true"}`. In the event log, `payout_id` is null. 409 if the endpoint is disabled.',
        psp="endpoints test",
    )
    async def test_webhook_endpoint(self, context: RequestContext, endpoint_id: Uuid, body: SendSampleBody) -> CommandResult:
        """Send the endpoint a sample of an event type, whatever it subscribes to. Responds with 200 and the delivery.

        Returns NOT_FOUND and, for a disabled endpoint, INVALID_STATE, both stored under the key.
        """

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            endpoint = await find_endpoint(context.merchant_id, endpoint_id)
            if endpoint.status != "ENABLED":
                raise Problem("INVALID_STATE", f"Endpoint {endpoint_id} is disabled; enable it before you test it.")
            event_id, delivery_id = unit.ids.next(), unit.ids.next()
            previous_status, data = sample(body.event_type, unit.ids, unit.now_text)
            event_body = unit.event_body(event_id, body.event_type, previous_status, data)
            await conn.execute(
                _SQL["send_sample"], unit.merchant_id, event_id, body.event_type, event_body, previous_status,
                context.request_id, context.actor, context.traceparent, unit.now, delivery_id, endpoint_id,
            )  # fmt: skip
            unit.effects.add(Effect.WORK_DUE)
            now = render(unit.now)
            delivery = Delivery(
                id=delivery_id,
                event_id=event_id,
                event_type=body.event_type,
                endpoint_id=endpoint_id,
                status="PENDING",
                attempt_count=0,
                next_attempt_at=now,
                created_at=now,
                updated_at=now,
            )
            return CommandResult(200, msgspec.json.encode(delivery))

        return await self._work.run(context, action)


def obstacle_to(event_type: str, body: str, event_types: "Sequence[str]", filters: str | None) -> str | None:
    """Return why an endpoint with these event types and filters does not receive an event; None if it does."""
    if not includes(event_types, event_type):
        return f"the type {event_type} is not in event_types"
    return None if filters is None else first_unmet(filters, body)


def _reason_to_send(event_type: str, filters: str | None) -> str:
    return f"the type {event_type} is in event_types{'' if filters is None else ', and all filters hold'}"
