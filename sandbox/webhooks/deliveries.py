"""List and show events and their deliveries with each attempt, and resend a delivery."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any, Final, TypeVar, get_args

import msgspec
from yarl import URL

from sandbox.domain import redaction
from sandbox.domain.clock import milliseconds, render
from sandbox.domain.enumerations import ERROR_CLASSES, EVENT_TYPES, DeliveryStatus, ErrorClass
from sandbox.domain.errors import Problem
from sandbox.domain.fields import AlwaysFalse, EmptyBody, Uuid
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.shown import shown
from sandbox.domain.trace import HEADER as TRACEPARENT_HEADER
from sandbox.domain.trace import derive
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.fault import damaged_body
from sandbox.http.operation import DATED_PAGE, get, parameter, post
from sandbox.http.paging import Page, PageWindow, page, page_until, selected
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection, consistent_read
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.webhooks.outbound.sender import DEFAULT_HEADERS
from sandbox.webhooks.outbound.timings import Timings, stored
from sandbox.webhooks.signing.standard_webhooks import ID_HEADER, NOW_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER

STATUSES: Final[tuple[DeliveryStatus, ...]] = get_args(DeliveryStatus)
MAX_ATTEMPTS_SHOWN: Final = 100
"""A delivery shows its newest attempts only: resends add attempts without limit, and each can hold 20,000 bytes."""

MAX_READ: Final = 1000
"""How many rows a page of one event type reads at most, because no index has the type."""
_ENDS_EARLY: Final = f"A page of one `{{}}` ends after {MAX_READ} others too, even if it is empty; the next page continues."

FILTERS: Final = (
    parameter("endpoint_id", "Only deliveries to this endpoint.", type="string", format="uuid"),
    parameter("payout_id", "Only deliveries of this payout's events.", type="string", format="uuid"),
)
"""The filters that all lists of deliveries have."""

_SQL: Final = read_statements(__name__)


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


E = TypeVar("E", bound=Event)
D = TypeVar("D", bound=Delivery)


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


Rendered = Callable[[str, str | None, str, str, str, bytes], Awaitable[bytes]]
"""Takes the merchant, the endpoint's `wire` as JSON, its signing, and an event's id, type and body."""


async def _as_stored(*event: Any) -> bytes:
    body: bytes = event[-1]
    return body


class DeliveryService:
    """Reads events and deliveries, and resends a delivery."""

    def __init__(self, work: UnitOfWorkRunner, rendered: Rendered = _as_stored) -> None:
        """`rendered` returns an event's body as an endpoint gets it."""
        self._work = work
        self._rendered = rendered

    @get(
        "/api/v1/events",
        "List events, newest first",
        {200: list[Event]},
        query=(
            *DATED_PAGE,
            parameter("payout_id", "Only events of this payout.", type="string", format="uuid"),
            parameter("type", "Only events of this type.", type="string", enum=list(EVENT_TYPES)),
        ),
        description="Includes samples that were sent to test an endpoint. Like those of bulk credits, they have no payout_id. "
        f"{_ENDS_EARLY.format('type')}",
        psp="events list --payout {payout_id}",
        columns="id created_at type payout_id",
    )
    async def list_events(self, merchant_id: str, window: PageWindow, query: Mapping[str, str]) -> Page:
        """Return a page of events, newest first: of all payouts, or of one."""
        wanted = _wanted(query, "type")
        limit = _read(window, "type" in query).limit + 1
        arguments: list[Any] = [merchant_id, window.before, window.since, limit, wanted.get("type")]
        statement = _SQL["events"]
        if "payout_id" in query:
            statement = _SQL["events_by_payout"]
            arguments.append(query["payout_id"])
        async with connection(merchant_id) as conn:
            records = await conn.fetch(statement, *arguments)
        return page_of_type(records, window, wanted, lambda record: _shown_event(Event, record))

    @get("/api/v1/events/{event_id}", "Get an event and its deliveries", {200: EventWithDeliveries}, psp="events get")
    async def get_event(self, merchant_id: str, event_id: Uuid) -> EventWithDeliveries:
        """Return an event with its deliveries. Raises NOT_FOUND."""
        async with consistent_read(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["event"], merchant_id, event_id)
            if record is None:
                raise Problem("NOT_FOUND", f"Event {event_id} not found.")
            whole_list = PageWindow(1000, MAX_ID, MIN_ID)
            records = await conn.fetch(*deliveries_query(merchant_id, whole_list, {"event_id": event_id}))
        return _shown_event(EventWithDeliveries, record, deliveries=[shown_delivery(Delivery, found) for found in records])

    @get(
        "/api/v1/webhook-deliveries",
        "List webhook deliveries, newest first",
        {200: list[Delivery]},
        query=(
            *DATED_PAGE,
            *FILTERS,
            parameter("event_id", "Only deliveries of this event.", type="string", format="uuid"),
            parameter("event_type", "Only deliveries of events of this type.", type="string", enum=list(EVENT_TYPES)),
            parameter("status", "Only deliveries in this state.", type="string", enum=list(STATUSES)),
        ),
        description=_ENDS_EARLY.format("event_type"),
        psp="deliveries list --endpoint {endpoint_id} --payout {payout_id} --event {event_id}",
        columns="id created_at event_type endpoint_id status attempt_count next_attempt_at",
    )
    async def list_webhook_deliveries(self, merchant_id: str, window: PageWindow, query: Mapping[str, str]) -> Page:
        """Return a page of deliveries, newest first; optionally of one state, endpoint, payout, event or event type only."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(*deliveries_query(merchant_id, _read(window, "event_type" in query), query))
        wanted = _wanted(query, "event_type", "status") if "event_type" in query else {}
        return page_of_type(records, window, wanted, lambda record: shown_delivery(Delivery, record))

    @get(
        "/api/v1/webhook-deliveries/{delivery_id}",
        "Get a delivery and its attempts",
        {200: DeliveryWithAttempts},
        description="At most the newest 100 attempts, oldest first.",
        psp="deliveries get",
    )
    async def get_webhook_delivery(self, merchant_id: str, delivery_id: Uuid) -> DeliveryWithAttempts:
        """Return a delivery with its newest attempts. Raises NOT_FOUND."""
        async with consistent_read(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["get"], merchant_id, delivery_id)
            if record is None:
                raise _no_delivery(delivery_id)
            event = await conn.fetchrow(_SQL["sent"], merchant_id, record["event_id"])
            attempts = await conn.fetch(_SQL["attempts"], merchant_id, delivery_id, MAX_ATTEMPTS_SHOWN)
            form = await conn.fetchrow(_SQL["format_of"], merchant_id, record["endpoint_id"])
        assert event is not None, "only a reset or a restore deletes an event, and it deletes the event's deliveries too"
        traceparent = event["traceparent"] or derive(event["request_id"])
        body = event["body"].encode()
        if form is not None:
            body = await self._rendered(
                merchant_id, form["wire"], form["signing"], record["event_id"], record["event_type"], body
            )
        found = [_to_attempt(attempt, record["event_id"], body, traceparent) for attempt in attempts]
        return shown_delivery(DeliveryWithAttempts, record, attempts=found)

    @post(
        "/api/v1/webhook-deliveries/{delivery_id}/resend",
        "Resend a webhook now",
        {200: Delivery},
        EmptyBody,
        errors=("INVALID_STATE",),
        description="If that fails, its retry schedule starts over. 409 if the endpoint is disabled or deleted.",
        psp="deliveries resend",
    )
    async def resend_webhook_delivery(self, context: RequestContext, delivery_id: Uuid) -> CommandResult:
        """Make a delivery due now and restart its retry schedule. Responds with 200 and the delivery.

        Returns NOT_FOUND and, for a disabled or deleted endpoint, INVALID_STATE, both stored under the key. An attempt in
        progress continues, so the endpoint can receive the event twice, with the same webhook-id.
        """

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            endpoint = await conn.fetchrow(_SQL["endpoint_of"], context.merchant_id, delivery_id)
            if endpoint is None:
                raise _no_delivery(delivery_id)
            if endpoint["status"] is None:
                raise Problem("INVALID_STATE", f"Endpoint {endpoint['id']} was deleted; its deliveries cannot be resent.")
            if endpoint["status"] != "ENABLED":
                raise Problem("INVALID_STATE", f"Endpoint {endpoint['id']} is disabled; enable it before you resend.")
            record = await conn.fetchrow(_SQL["resend"], context.merchant_id, delivery_id, unit.now)
            assert record is not None, "only a reset or a restore deletes a delivery, and both need the merchant's lock"
            unit.effects.add(Effect.WORK_DUE)
            return CommandResult(200, msgspec.json.encode(shown_delivery(Delivery, record)))

        return await self._work.run(context, action)


def _wanted(query: Mapping[str, str], *names: str) -> Mapping[str, Sequence[str]]:
    return {name: selected(query, name, ()) for name in names if name in query}


def _read(window: PageWindow, is_filtered: bool) -> PageWindow:
    """Return the window to read for a page: a larger one if rows of other types than the wanted ones are left out."""
    return replace(window, limit=MAX_READ - 1) if is_filtered else window


def page_of_type(
    records: Sequence[Any], window: PageWindow, wanted: Mapping[str, Sequence[str]], item: Callable[[Any], Any]
) -> Page:
    """Return a page of the records with the wanted values. One that has read MAX_READ ends there, even if it is empty."""
    matching = (record for record in records if all(record[column] in values for column, values in wanted.items()))
    found = [item(record) for record in islice(matching, window.limit + 1)]
    if wanted and len(found) <= window.limit and len(records) == MAX_READ:
        return page_until(found, records[-1]["id"])
    return page(found, window.limit, [one.id for one in found])


def deliveries_query(merchant_id: str, window: PageWindow, query: Mapping[str, str]) -> tuple[Any, ...]:
    """Return the statement and its arguments. Each statement reads at most a few times a page's length.

    The one for a payout also reads the newest 1,000 changes of the payout.
    """
    common = (merchant_id, window.before, window.since, window.limit + 1)
    statuses = selected(query, "status", STATUSES)
    endpoints = [query["endpoint_id"]] if "endpoint_id" in query else None
    if "event_id" in query:
        return _SQL["list_by_event"], *common, query["event_id"], statuses, endpoints, query.get("payout_id")
    if "payout_id" in query:
        return _SQL["list_by_payout"], *common, query["payout_id"], statuses, endpoints
    if endpoints is None and (len(statuses) == len(STATUSES) or "event_type" in query):
        # With an event type, the page picks the status too: MAX_READ rows of each endpoint and status would be too many.
        return _SQL["list_all"], *common
    return _SQL["list"], *common, endpoints, statuses


def _shown_event(kind: type[E], record: Mapping[str, Any], **fields: Any) -> E:
    data, at = _decode_body(record["body"]).data, render(record["created_at"])
    return shown(kind, record, timestamp=at, livemode=False, previous_status=record["from_status"], data=data, **fields)


def shown_delivery(kind: type[D], record: Mapping[str, Any], **fields: Any) -> D:
    """Return a delivery from its row, with the further fields of its kind."""
    return shown(kind, record, attempt_count=record["attempts"], **fields)


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
        # A dialect's webhook has none of our headers.
        context = {**now, TRACEPARENT_HEADER: traceparent} if ID_HEADER in named else {}
        headers = {"host": host, **DEFAULT_HEADERS, **named, **context, "content-length": str(len(sent))}
        request = AttemptRequest(headers, sent.decode(errors="replace"))
    response = None
    if record["status"] is not None:
        response = AttemptResponse(_decode_headers(record["response_headers"]), record["response_body"])
    url, timings = redaction.address(record["url"]), stored(record)
    manual = bool(record["manual"])
    return shown(Attempt, record, url=url, manual=manual, request=request, response=response, timings=timings)


def _no_delivery(delivery_id: str) -> Problem:
    return Problem("NOT_FOUND", f"Delivery {delivery_id} not found.")
