"""List what a merchant's clock will run next: the payout steps, payments of sales and webhook attempts that are scheduled."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from sandbox.domain import redaction
from sandbox.domain.clock import render, round_up
from sandbox.domain.enumerations import EventType, PayoutStatus, SalePaymentKind
from sandbox.domain.failure_codes import DEFAULT_FAILURE_CODES
from sandbox.domain.sale import COLUMNS, due_kind, payment_of, to_sale
from sandbox.domain.scenario_engine import Catalogue
from sandbox.domain.scenario_runner import decide_due
from sandbox.domain.scenario_selection import named_or_stored
from sandbox.domain.shown import shown
from sandbox.http.operation import LIMIT, get, parameter
from sandbox.http.paging import PageWindow
from sandbox.infrastructure.db.engine import consistent_read
from sandbox.infrastructure.db.statements import read_statements
from sandbox.worlds.clock.advancer import SENT_BY_WORKERS

_MAX_CHANGES: Final = 100
"""Number of a payout's newest changes whose deliveries are searched."""

_SQL: Final = read_statements(__name__, columns=COLUMNS, sent_by_workers=SENT_BY_WORKERS)


class DueStep(msgspec.Struct, tag_field="kind", tag="payout_step", rename={"source": "from"}, kw_only=True):
    """A payout's scheduled status change, or several that happen at the same time.

    `to` is the status after them, null if nothing will change because the payout cannot continue its scenario. `description`
    names every status on the way.
    """

    due_at: str
    payout_id: str
    source: PayoutStatus
    to: PayoutStatus | None
    failure_code: str | None
    description: str


class DueSale(msgspec.Struct, tag_field="kind", tag="sale_payment", kw_only=True):
    """A scheduled payment of a sale: its advance, or its final payment, which is negative if it takes back the advance."""

    due_at: str
    sale_id: str
    user_id: str
    payment: SalePaymentKind
    amount: Decimal
    description: str


class DueDelivery(msgspec.Struct, tag_field="kind", tag="delivery_attempt", kw_only=True):
    """A scheduled attempt at a webhook delivery. `attempt` is its number. `payout_id` is null for an event without a payout."""

    due_at: str
    delivery_id: str
    event_id: str
    event_type: EventType
    payout_id: str | None
    endpoint_id: str
    url: redaction.Address
    attempt: int
    description: str


class DueWork(msgspec.Struct):
    """What happens next, soonest first. Of what is due at the same time, payouts come first, then sales.

    A request for `clock/advance` to an item's `due_at` runs it. There are no further pages: `next_cursor` is always null, and
    `has_more` says whether there is more than `limit`.
    """

    data: list[DueStep | DueSale | DueDelivery]
    has_more: bool
    next_cursor: str | None = None


class DueService:
    """Lists scheduled work."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    @get(
        "/sandbox/v1/clock/due",
        "List what happens next, soonest first",
        {200: DueWork},
        query=(LIMIT, parameter("payout_id", "Only what happens to this payout.", type="string", format="uuid")),
        description="The payout steps, payments of sales and webhook attempts that the merchant's clock will run, if no "
        "request changes them first. Times before the clock's `now` are overdue: the work is in progress, or starts as soon as "
        "a worker is free. Payouts that wait for a decision without a time limit, deliveries to disabled endpoints, and "
        "deliveries that a listener sends are not listed.",
        psp="clock due --payout {payout_id}",
    )
    async def list_due(self, merchant_id: str, window: PageWindow, query: Mapping[str, str]) -> DueWork:
        """Return a page of scheduled items, of all payouts or of one. For one payout, only its newest changes count."""
        payout_id, limit = query.get("payout_id"), window.limit
        fetch_limit = limit + 1
        async with consistent_read(merchant_id) as conn:
            if payout_id is None:
                steps = await conn.fetch(_SQL["steps"], merchant_id, fetch_limit)
                sales = await conn.fetch(_SQL["sales"], merchant_id, fetch_limit)
                deliveries = await conn.fetch(_SQL["deliveries"], merchant_id, fetch_limit)
            else:
                steps, sales = await conn.fetch(_SQL["step_of_payout"], merchant_id, payout_id), []
                deliveries = await conn.fetch(_SQL["deliveries_of_payout"], merchant_id, fetch_limit, payout_id, _MAX_CHANGES)
        found: Sequence[tuple[datetime, int, str, DueStep | DueSale | DueDelivery]] = [
            *((record["due_at"], 0, record["id"], self._step(record)) for record in steps),
            *((record["due_at"], 1, record["id"], _sale(record)) for record in sales),
            *((record["due_at"], 2, record["id"], _delivery(record)) for record in deliveries),
        ]
        ordered = [item for *_, item in sorted(found, key=lambda entry: entry[:3])]
        return DueWork(ordered[:limit], len(ordered) > limit)

    def _step(self, record: Mapping[str, Any]) -> DueStep:
        source, due_at = record["status"], record["due_at"]
        try:
            scenario = named_or_stored(self._catalogue, record["scenario"], record["path"])
            taken = [step for _, step in decide_due(scenario, record["step"], source, due_at, record["id"]).taken]
        except KeyError:  # the scenario no longer exists
            taken = []
        to = taken[-1].to if taken else None
        failure_code = (taken[-1].failure_code or DEFAULT_FAILURE_CODES.get(taken[-1].to)) if taken else None
        path = " → ".join([source, *(step.to for step in taken)])
        if not taken:
            path += ": the scenario cannot continue"
        return DueStep(
            due_at=_time(due_at),
            payout_id=record["id"],
            source=source,
            to=to,  # type: ignore[arg-type]  # a scenario has only known statuses
            failure_code=failure_code,
            description=path if failure_code is None else f"{path} ({failure_code})",
        )


def _sale(record: Mapping[str, Any]) -> DueSale:
    sale = to_sale(record)
    kind = due_kind(sale)
    assert kind is not None, "the table's CHECKs allow a due time only for an open sale"
    amount = payment_of(sale, kind)
    return DueSale(
        due_at=_time(record["due_at"]),
        sale_id=sale.id,
        user_id=sale.user_id,
        payment=kind,
        amount=amount,
        description=f"{kind} of {amount} for {sale.brand}",
    )


def _delivery(record: Mapping[str, Any]) -> DueDelivery:
    attempt, url = record["attempts"] + 1, redaction.address(record["url"])
    description = f"Attempt {attempt} to send {record['event_type']} to {url}"
    due_at, delivery_id = _time(record["due_at"]), record["id"]
    return shown(DueDelivery, record, due_at=due_at, delivery_id=delivery_id, url=url, attempt=attempt, description=description)


def _time(due_at: datetime) -> str:
    # Rounded up: when the clock shows this time, the moment has come.
    return render(round_up(due_at))
