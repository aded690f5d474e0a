"""Create, read and list payouts, and change their state."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, get_args

import msgspec

from sandbox.domain.clock import render
from sandbox.domain.enumerations import DestType, PayoutStatus
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Id, one_of
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.payout import COLUMNS, Payout, metadata_pair_id, to_payout
from sandbox.domain.payout_commands import CreatePayout, CreatePayouts, NewPayout, TransitionPayout
from sandbox.domain.payout_states import STATUSES
from sandbox.domain.trace import derive
from sandbox.domain.unit import CommandResult, RequestContext
from sandbox.http.body import decode, decode_items
from sandbox.http.body_errors import FieldProblem
from sandbox.http.paging import Page, PageWindow, page
from sandbox.http.query_errors import entries
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.large_work import LARGE_BATCH, READS, compute
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.directory.destination import destination_errors
from sandbox.payouts.reads import PayoutReads
from sandbox.payouts.requests import CreatePayoutBody, CreatePayoutsBody, new_payout
from sandbox.payouts.search import BY_REFERENCE, search_payouts
from sandbox.payouts.waiting import PayoutWaits
from sandbox.unit_of_work.runner import UnitOfWorkRunner

_SQL: Final = read_statements(__name__, columns=COLUMNS)
_LIST: Final = _SQL["list"]
_LIST_ALL: Final = _SQL["list_all"]
_LIST_BY_USER: Final = _SQL["list_by_user"]
_LIST_BY_METADATA: Final = _SQL["list_by_metadata"]
_TIMELINE: Final = _SQL["timeline"]


class TimelineEntry(msgspec.Struct, rename={"source": "from"}):
    """One status change of a payout.

    `actor` is the id of the API key that requested it. `request_id` is the request that caused it; for a change made by
    the worker, it is the last request that set the payout in motion. `traceparent` is the trace of the request that created
    the payout.
    """

    at: str
    source: Annotated[str, one_of(PayoutStatus)] | None
    to: Annotated[str, one_of(PayoutStatus)]
    cause: Annotated[str, one_of(("api", "worker", "ipn", "simulation"))]
    actor: Id | None
    request_id: str
    scenario: str | None
    step: int | None
    ledger_transfer_id: str | None
    event_id: Id
    traceparent: str


class Timeline(msgspec.Struct):
    """All status changes of a payout, oldest first."""

    data: list[TimelineEntry]


class PayoutService:
    """The operations on payouts. Every change goes through the merchant's queue."""

    def __init__(self, work: UnitOfWorkRunner, directory: Directory, reads: PayoutReads, waits: PayoutWaits) -> None:
        self._work = work
        self._reads = reads
        self._waits = waits
        self._directory = directory
        self._item_decoder = msgspec.json.Decoder(CreatePayoutBody)

    def check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in a create request that its schema cannot express."""
        return destination_errors(fields, self._directory)

    async def create(
        self,
        context: RequestContext,
        body: CreatePayoutBody,
        scenario_header: str | None = None,
    ) -> CommandResult:
        """Create one payout; `scenario_header` is the request's X-Sandbox-Scenario.

        Raises VALIDATION_ERROR. Other refusals, such as INSUFFICIENT_BALANCE, are returned.
        """
        new = new_payout(body, self._directory, scenario_header)
        return await self._work.submit(CreatePayout(context, new))

    async def create_many(
        self,
        context: RequestContext,
        body: CreatePayoutsBody,
        scenario_header: str | None = None,
    ) -> CommandResult:
        """Create up to 1000 payouts independently; return the result of each, in order."""

        def read(raw: bytes) -> NewPayout:
            return new_payout(decode(self._item_decoder, raw, self.check), self._directory, scenario_header)

        is_large = len(body.payouts) > LARGE_BATCH
        items = await compute(context.merchant_id, lambda: decode_items("payouts", body.payouts, read), is_large=is_large)
        return await self._work.submit(CreatePayouts(context, items))

    async def transition(self, context: RequestContext, payout_id: str, action: str) -> CommandResult:
        """Approve, reject, cancel or reinitiate a payout. Raises NOT_FOUND for a malformed id; other refusals are returned."""
        return await self._work.submit(TransitionPayout(context, payout_id, action))

    async def get(self, merchant_id: str, payout_id: str) -> Payout:
        """Return a payout. Raises NOT_FOUND."""
        found = await self._reads.get(merchant_id, payout_id)
        if found is None:
            raise _not_found(payout_id)
        return found

    async def find(self, merchant_id: str, reference: str) -> Payout | None:
        """Return the payout with this merchant reference, if there is one."""
        arguments = (reference, STATUSES, get_args(DestType), MAX_ID, MIN_ID, None, "{}")
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(BY_REFERENCE, merchant_id, *arguments)
        return None if record is None else to_payout(record)

    async def simulate(
        self,
        context: RequestContext,
        payout_id: str,
        status: str,
        failure_code: str | None,
        *,
        can_approve: bool,
    ) -> CommandResult:
        """Move a payout to `status` as its bank would. `can_approve`: whether the caller may approve and reject.

        Raises NOT_FOUND if the id is malformed; other refusals are returned.
        """
        transition = TransitionPayout(
            context, payout_id, "transition",
            status=status, cause="simulation", failure_code=failure_code, can_approve=can_approve,
        )  # fmt: skip
        return await self._work.submit(transition)

    async def wait(self, merchant_id: str, payout_id: str, statuses: Sequence[str], seconds: float) -> Payout:
        """Return a payout once it has reached one of `statuses`, or after `seconds` of real time. Raises NOT_FOUND."""
        found = await self._waits.wait(merchant_id, payout_id, statuses, seconds)
        if found is None:
            raise _not_found(payout_id)
        return found

    async def list(
        self,
        merchant_id: str,
        window: PageWindow,
        statuses: Sequence[str],
        dest_types: Sequence[str],
        filters: Mapping[str, str],
    ) -> Page:
        """Return a page of payouts, newest first.

        `filters` may have q, status, dest_type, merchant_reference, user_id and any number of `metadata[KEY]`. A payout must
        match all of them.
        """
        if text := filters.get("q", "").strip():
            async with READS.place(merchant_id):
                return await search_payouts(merchant_id, window, text, statuses, dest_types, filters)
        fetch_limit = window.limit + 1
        bounds = (window.before, window.since)
        reference, user_id = filters.get("merchant_reference"), filters.get("user_id")
        metadata = entries(filters, "metadata")
        wanted = msgspec.json.encode(metadata).decode()
        arguments: tuple[Any, ...]
        if reference is not None:
            statement, arguments = BY_REFERENCE, (reference, statuses, dest_types, *bounds, user_id, wanted)
        elif metadata:
            pair = metadata_pair_id(*next(iter(metadata.items())))
            statement, arguments = _LIST_BY_METADATA, (pair, statuses, dest_types, *bounds, fetch_limit, wanted, user_id)
        elif user_id is not None:
            statement, arguments = _LIST_BY_USER, (user_id, statuses, dest_types, *bounds, fetch_limit)
        elif "status" in filters or "dest_type" in filters:
            statement, arguments = _LIST, (statuses, dest_types, *bounds, fetch_limit)
        else:
            statement, arguments = _LIST_ALL, (*bounds, fetch_limit)
        async with connection(merchant_id) as conn:
            found = [to_payout(record) for record in await conn.fetch(statement, merchant_id, *arguments)]
        return page(found, window.limit, [payout.id for payout in found])

    async def timeline(self, merchant_id: str, payout_id: str) -> Timeline:
        """Return all status changes of a payout, oldest first. Raises NOT_FOUND."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_TIMELINE, merchant_id, payout_id)
        if not records:  # every payout has at least the change that created it
            raise _not_found(payout_id)
        return Timeline(
            [
                TimelineEntry(
                    at=render(record["created_at"]),
                    source=record["from_status"],
                    to=record["to_status"],
                    cause=record["cause"],
                    actor=record["actor"],
                    request_id=record["request_id"],
                    scenario=record["scenario"],
                    step=record["step"],
                    ledger_transfer_id=record["transfer_id"],
                    event_id=record["event_id"],
                    traceparent=record["traceparent"] or derive(record["request_id"]),
                )
                for record in records
            ]
        )


def _not_found(payout_id: str) -> Problem:
    return Problem("NOT_FOUND", f"Payout {payout_id} not found.")
