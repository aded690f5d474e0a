"""List and show events and their deliveries with each attempt, and resend a delivery."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import msgspec
from yarl import URL

from sandbox.db.engine import connection, consistent_read
from sandbox.db.rows import by_key, update_by_key
from sandbox.domain import redaction
from sandbox.domain.choices import ERROR_CLASSES, DeliveryStatus, ErrorClass
from sandbox.domain.clock import milliseconds, render
from sandbox.domain.errors import Problem
from sandbox.domain.fault import damaged_body
from sandbox.domain.fields import AlwaysFalse
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.trace import HEADER as TRACEPARENT_HEADER
from sandbox.domain.trace import derive
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.domain.webhook_signing import ID_HEADER, NOW_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from sandbox.http.paging import Page, PageWindow, page
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.webhooks.sender import DEFAULT_HEADERS
from sandbox.webhooks.timings import Timings, stored

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

STATUSES: Final[tuple[DeliveryStatus, ...]] = get_args(DeliveryStatus)
MAX_ATTEMPTS_SHOWN: Final = 100
"""A delivery shows its newest attempts only: resends add attempts without limit, and each can hold 20,000 bytes."""

_EVENT_COLUMNS: Final = "id::text AS id, type, created_at, payout_id::text AS payout_id, from_status, body"

_EVENTS: Final = f"""
SELECT {_EVENT_COLUMNS} FROM events WHERE merchant_id = $1 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, events.id DESC LIMIT $4
"""  # noqa: S608 -- constants

_EVENTS_BY_PAYOUT: Final = f"""
SELECT {_EVENT_COLUMNS} FROM events WHERE merchant_id = $1 AND payout_id = $5 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, payout_id DESC, change DESC LIMIT $4
"""  # noqa: S608 -- constants

_EVENT: Final = f"SELECT {_EVENT_COLUMNS} FROM events WHERE {by_key('events', 'id', '$2')}"  # noqa: S608 -- constants

_COLUMNS: Final = (
    "d.id::text AS id, d.event_id::text AS event_id, "  # noqa: S608 -- constants
    f"(SELECT type FROM events WHERE {by_key('events', 'id', 'd.event_id')}) AS event_type, "
    "d.endpoint_id::text AS endpoint_id, d.status, d.attempts, d.next_attempt_at, d.created_at, d.updated_at"
)

_LIST_ALL: Final = f"""
SELECT {_COLUMNS} FROM webhook_deliveries d WHERE merchant_id = $1 AND d.id < $2 AND d.id >= $3
ORDER BY d.merchant_id DESC, d.id DESC LIMIT $4
"""  # noqa: S608 -- constants

# Each (endpoint, status) is a range of one index in id order, so a page reads a few times its own length per endpoint. The
# query finds the endpoints by skipping through that index, because some of them may have been deleted.
_LIST: Final = f"""
WITH RECURSIVE endpoints (id) AS (
    SELECT n.id FROM unnest($5::uuid[]) AS n (id)
    UNION ALL
    SELECT f.endpoint_id FROM (
        SELECT endpoint_id FROM webhook_deliveries WHERE merchant_id = $1 AND status <> '' AND $5::uuid[] IS NULL
        ORDER BY merchant_id, endpoint_id LIMIT 1
    ) f
    UNION ALL
    SELECT (
        SELECT w.endpoint_id FROM webhook_deliveries w
        WHERE w.merchant_id = $1 AND w.status <> '' AND w.endpoint_id > e.id
        ORDER BY w.merchant_id, w.endpoint_id LIMIT 1
    ) FROM endpoints e WHERE $5::uuid[] IS NULL AND e.id IS NOT NULL
)
SELECT {_COLUMNS} FROM (SELECT id FROM endpoints WHERE id IS NOT NULL) n
CROSS JOIN unnest($6::text[]) AS s (status)
CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries w
    WHERE w.merchant_id = $1 AND w.status <> '' AND (w.endpoint_id, w.status, w.id) < (n.id, s.status, $2::uuid)
        AND (w.endpoint_id, w.status, w.id) >= (n.id, s.status, $3::uuid)
    ORDER BY w.merchant_id DESC, w.endpoint_id DESC, w.status DESC, w.id DESC LIMIT $4
) d ORDER BY d.id DESC LIMIT $4
"""  # noqa: S608 -- constants

# An event has at most one delivery per endpoint. The query orders them like the index on (merchant, event), so that only
# that index fits. With an equality, the planner may scan the primary key instead, because that has the order of the result.
_LIST_BY_EVENT: Final = f"""
SELECT {_COLUMNS} FROM (
    SELECT * FROM webhook_deliveries WHERE merchant_id = $1 AND event_id >= $5 AND event_id <= $5
    ORDER BY merchant_id, event_id OFFSET 0
) d WHERE d.id < $2 AND d.id >= $3
    AND status = ANY ($6::text[]) AND ($7::uuid[] IS NULL OR endpoint_id = ANY ($7)) ORDER BY d.id DESC LIMIT $4
"""  # noqa: S608 -- constants

_GET: Final = f"SELECT {_COLUMNS} FROM webhook_deliveries d WHERE {by_key('d', 'id', '$2')}"  # noqa: S608 -- constants

_ATTEMPTS: Final = """
SELECT * FROM (
    SELECT a.attempt, a.at, a.url, a.signature, a.signed_at, a.fault_id::text AS fault_id, a.fault_kind, a.status,
        a.response_headers::text AS response_headers, a.response_body, a.error, a.error_class, a.dns_ms, a.connect_ms,
        a.tls_ms, a.first_byte_ms, a.duration_ms, a.manual, a.request_headers::text AS request_headers
    FROM webhook_attempts a WHERE a.merchant_id = $1 AND a.delivery_id = $2 ORDER BY a.attempt DESC LIMIT $3
) newest ORDER BY attempt
"""

_SENT: Final = f"SELECT body, request_id, traceparent FROM events WHERE {by_key('events', 'id', '$2')}"  # noqa: S608 -- constants

_ENDPOINT_OF: Final = f"""
SELECT n.status, d.endpoint_id::text AS id
FROM (SELECT endpoint_id FROM webhook_deliveries w WHERE {by_key("w", "id", "$2")} OFFSET 0) d
LEFT JOIN LATERAL (
    SELECT status FROM webhook_endpoints WHERE {by_key("webhook_endpoints", "id", "d.endpoint_id")} OFFSET 0
) n ON true
"""  # noqa: S608 -- constants

_RESEND: Final = f"""
WITH d AS ({
    update_by_key(
        "webhook_deliveries",
        rows="(SELECT $2::uuid AS id) n",
        key=("id", "n.id"),
        changes={
            "status": "'PENDING'",
            "next_attempt_at": "$3",
            "scheduled": "0",
            "leased_until": "NULL",
            "resent": "true",
            "updated_at": "$3",
        },
        kept=("event_id", "endpoint_id", "attempts", "created_at"),
        lock=True,
        returning="t.*",
    )
})
SELECT {_COLUMNS} FROM d
"""  # noqa: S608 -- constants


class Event(msgspec.Struct, kw_only=True):
    """An event: everything in its webhook's body (`data` is identical byte for byte), and the payout concerned."""

    id: str
    type: str
    timestamp: str
    livemode: AlwaysFalse
    previous_status: str | None
    created_at: str
    payout_id: str | None
    data: msgspec.Raw


class Delivery(msgspec.Struct, kw_only=True):
    """The delivery of an event to one endpoint. The endpoint may have been deleted since."""

    id: str
    event_id: str
    event_type: str
    endpoint_id: str
    status: str
    attempt_count: int
    next_attempt_at: str | None
    created_at: str
    updated_at: str


class EventWithDeliveries(Event, kw_only=True):
    """An event and its deliveries."""

    deliveries: list[Delivery]


class AttemptRequest(msgspec.Struct):
    """The request as it was sent."""

    headers: dict[str, str]
    body: str


class AttemptResponse(msgspec.Struct):
    """The response, possibly truncated."""

    headers: dict[str, str]
    body: str


class Attempt(msgspec.Struct, kw_only=True):
    """One attempt at a delivery; `at` is in the merchant's time. If `request` is null, nothing was sent."""

    attempt: int
    manual: bool
    """Whether someone asked for it by a resend."""
    at: str
    url: str
    fault_id: str | None
    """The fault that hit the attempt. It may have been deleted since."""
    fault_kind: str | None
    request: AttemptRequest | None
    status: int | None
    response: AttemptResponse | None
    error: str | None
    error_class: Annotated[ErrorClass | None, msgspec.Meta(description=ERROR_CLASSES)]
    duration_ms: int
    timings: Timings


class DeliveryWithAttempts(Delivery, kw_only=True):
    """A delivery and its newest attempts, oldest first."""

    attempts: list[Attempt]


class _Body(msgspec.Struct):
    """The part of a webhook's body that the log shows."""

    data: msgspec.Raw


_decode_body: Final = msgspec.json.Decoder(_Body).decode
_decode_headers: Final = msgspec.json.Decoder(dict[str, str]).decode


class DeliveryService:
    """Reads events and deliveries, and resends a delivery."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work

    async def events(self, merchant_id: str, window: PageWindow, payout_id: str | None = None) -> Page:
        """Return a page of events, newest first: of all payouts, or of one."""
        arguments: list[Any] = [merchant_id, window.before, window.since, window.limit + 1]
        statement = _EVENTS
        if payout_id is not None:
            statement = _EVENTS_BY_PAYOUT
            arguments.append(payout_id)
        async with connection(merchant_id) as conn:
            found = [Event(**_event_fields(record)) for record in await conn.fetch(statement, *arguments)]
        return page(found, window.limit, [event.id for event in found])

    async def event(self, merchant_id: str, event_id: str) -> EventWithDeliveries:
        """Return an event with its deliveries. Raises NOT_FOUND."""
        async with consistent_read(merchant_id) as conn:
            record = await conn.fetchrow(_EVENT, merchant_id, event_id)
            if record is None:
                raise Problem("NOT_FOUND", f"Event {event_id} not found.")
            whole_list = PageWindow(1000, MAX_ID, MIN_ID)
            records = await conn.fetch(*_deliveries_query(merchant_id, whole_list, STATUSES, None, event_id))
        return EventWithDeliveries(
            **_event_fields(record), deliveries=[Delivery(**_delivery_fields(found)) for found in records]
        )

    async def list(
        self,
        merchant_id: str,
        window: PageWindow,
        statuses: Sequence[str],
        endpoint_id: str | None = None,
        event_id: str | None = None,
    ) -> Page:
        """Return a page of deliveries in one of `statuses`, newest first; optionally of one endpoint or event only."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(*_deliveries_query(merchant_id, window, statuses, endpoint_id, event_id))
        found = [Delivery(**_delivery_fields(record)) for record in records]
        return page(found, window.limit, [delivery.id for delivery in found])

    async def get(self, merchant_id: str, delivery_id: str) -> DeliveryWithAttempts:
        """Return a delivery with its newest attempts. Raises NOT_FOUND."""
        async with consistent_read(merchant_id) as conn:
            record = await conn.fetchrow(_GET, merchant_id, delivery_id)
            if record is None:
                raise _no_delivery(delivery_id)
            event = await conn.fetchrow(_SENT, merchant_id, record["event_id"])
            attempts = await conn.fetch(_ATTEMPTS, merchant_id, delivery_id, MAX_ATTEMPTS_SHOWN)
        assert event is not None, "only a reset or a restore deletes an event, and it deletes the event's deliveries too"
        traceparent = event["traceparent"] or derive(event["request_id"])
        shown = [_to_attempt(attempt, record["event_id"], event["body"].encode(), traceparent) for attempt in attempts]
        return DeliveryWithAttempts(**_delivery_fields(record), attempts=shown)

    async def resend(self, context: RequestContext, delivery_id: str) -> CommandResult:
        """Make a delivery due now and restart its retry schedule. Responds with 200 and the delivery.

        Returns NOT_FOUND and, for a disabled or deleted endpoint, INVALID_STATE, both stored under the key. An attempt in
        progress continues, so the endpoint can receive the event twice, with the same webhook-id.
        """

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            endpoint = await conn.fetchrow(_ENDPOINT_OF, context.merchant_id, delivery_id)
            if endpoint is None:
                raise _no_delivery(delivery_id)
            if endpoint["status"] is None:
                raise Problem("INVALID_STATE", f"Endpoint {endpoint['id']} was deleted; its deliveries cannot be resent.")
            if endpoint["status"] != "ENABLED":
                raise Problem("INVALID_STATE", f"Endpoint {endpoint['id']} is disabled; enable it before you resend.")
            record = await conn.fetchrow(_RESEND, context.merchant_id, delivery_id, unit.now)
            assert record is not None, "only a reset or a restore deletes a delivery, and both need the merchant's lock"
            unit.effects.add(Effect.WORK_DUE)
            return CommandResult(200, msgspec.json.encode(Delivery(**_delivery_fields(record))))

        return await self._work.run(context, action)


def _deliveries_query(
    merchant_id: str, window: PageWindow, statuses: Sequence[str], endpoint_id: str | None, event_id: str | None
) -> tuple[Any, ...]:
    """Return the statement and its arguments. Each statement reads at most a few times a page's length."""
    common = (merchant_id, window.before, window.since, window.limit + 1)
    endpoints = None if endpoint_id is None else [endpoint_id]
    if event_id is not None:
        return _LIST_BY_EVENT, *common, event_id, statuses, endpoints
    if endpoints is None and len(statuses) == len(STATUSES):
        return _LIST_ALL, *common
    return _LIST, *common, endpoints, statuses


def _event_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    created_at = render(record["created_at"])
    return {
        "id": record["id"],
        "type": record["type"],
        "timestamp": created_at,
        "livemode": False,
        "previous_status": record["from_status"],
        "created_at": created_at,
        "payout_id": record["payout_id"],
        "data": _decode_body(record["body"]).data,
    }


def _delivery_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    next_attempt_at = record["next_attempt_at"]
    return {
        "id": record["id"],
        "event_id": record["event_id"],
        "event_type": record["event_type"],
        "endpoint_id": record["endpoint_id"],
        "status": record["status"],
        "attempt_count": record["attempts"],
        "next_attempt_at": None if next_attempt_at is None else render(next_attempt_at),
        "created_at": render(record["created_at"]),
        "updated_at": render(record["updated_at"]),
    }


def _to_attempt(record: Mapping[str, Any], event_id: str, body: bytes, traceparent: str) -> Attempt:
    request = None
    if record["signature"]:
        signed_at, now = record["signed_at"], {NOW_HEADER: render(record["at"])}
        if signed_at is None:  # an old row: every webhook was signed with the merchant's time then
            signed_at, now = milliseconds(record["at"]) // 1000, {}
        named = {ID_HEADER: event_id, TIMESTAMP_HEADER: str(signed_at), SIGNATURE_HEADER: record["signature"]}
        if record["request_headers"] is not None:  # signed in another dialect than Standard Webhooks
            named = _decode_headers(record["request_headers"])
        sent = damaged_body(record["fault_kind"] or "", body)
        host = URL(record["url"]).host_port_subcomponent or ""
        context = {**now, TRACEPARENT_HEADER: traceparent}
        headers = {"host": host, **DEFAULT_HEADERS, **named, **context, "content-length": str(len(sent))}
        request = AttemptRequest(headers, sent.decode(errors="replace"))
    status = record["status"]
    response = None
    if status is not None:
        response = AttemptResponse(_decode_headers(record["response_headers"]), record["response_body"])
    return Attempt(
        attempt=record["attempt"],
        manual=bool(record["manual"]),
        at=render(record["at"]),
        url=redaction.address(record["url"]),
        fault_id=record["fault_id"],
        fault_kind=record["fault_kind"],
        request=request,
        status=status,
        response=response,
        error=record["error"],
        error_class=record["error_class"],
        duration_ms=record["duration_ms"],
        timings=stored(record),
    )


def _no_delivery(delivery_id: str) -> Problem:
    return Problem("NOT_FOUND", f"Delivery {delivery_id} not found.")
