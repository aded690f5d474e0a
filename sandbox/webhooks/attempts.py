"""List deliveries with the outcome of each attempt, without what was sent: a payout's or an endpoint's history in one read."""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from sandbox.domain.enumerations import ERROR_CLASSES, ErrorClass
from sandbox.domain.shown import shown
from sandbox.http.operation import DATED_PAGE, get
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.engine import consistent_read
from sandbox.infrastructure.db.statements import read_statements
from sandbox.webhooks.deliveries import FILTERS, Delivery, deliveries_query, shown_delivery

MAX_ATTEMPTS_LISTED: Final = 20
"""How many of a delivery's attempts a list has, the newest: twice those of the longest schedule. Resends add more."""

_ATTEMPTS: Final = read_statements(__name__)["attempts"]


class AttemptOutcome(msgspec.Struct, kw_only=True):
    """An attempt's outcome; `at` is in the merchant's time."""

    attempt: int
    manual: bool
    """Whether someone asked for it by a resend."""
    at: str
    status: int | None
    error: str | None
    error_class: Annotated[ErrorClass | None, msgspec.Meta(description=ERROR_CLASSES)]
    duration_ms: int


class AttemptedDelivery(Delivery, kw_only=True):
    """A delivery and the outcomes of its newest attempts, oldest first."""

    attempts: list[AttemptOutcome]


class AttemptService:
    """Lists the attempts of many deliveries."""

    @get(
        "/api/v1/webhook-deliveries/attempts",
        "List webhook deliveries with the outcome of each attempt",
        {200: list[AttemptedDelivery]},
        query=(*DATED_PAGE, *FILTERS),
        description=f"Deliveries are newest first; each has its newest {MAX_ATTEMPTS_LISTED} attempts, oldest first. What "
        "was sent and received is in `GET /api/v1/webhook-deliveries/{delivery_id}`.",
        psp="deliveries attempts --endpoint {endpoint_id} --payout {payout_id}",
        columns="id created_at event_type endpoint_id status attempt_count",
    )
    async def list_delivery_attempts(self, merchant_id: str, window: PageWindow, query: Mapping[str, str]) -> Page:
        """Return a page of deliveries with their attempts, newest first; optionally of one endpoint or payout only."""
        async with consistent_read(merchant_id) as conn:
            records = await conn.fetch(*deliveries_query(merchant_id, window, query))
            delivery_ids = [record["id"] for record in records[: window.limit]]
            attempts = await conn.fetch(_ATTEMPTS, merchant_id, delivery_ids, MAX_ATTEMPTS_LISTED)
        outcomes: dict[str, list[AttemptOutcome]] = {record["id"]: [] for record in records}
        for record in attempts:
            outcomes[record["delivery_id"]].append(_outcome(record))
        found = [shown_delivery(AttemptedDelivery, record, attempts=outcomes[record["id"]]) for record in records]
        return page(found, window.limit, [delivery.id for delivery in found])


def _outcome(record: Mapping[str, object]) -> AttemptOutcome:
    return shown(AttemptOutcome, record, manual=bool(record["manual"]))
