"""Create, read and list payouts, and change their state."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from sandbox.domain.enumerations import DestType, PayoutStatus
from sandbox.domain.fields import EmptyBody, Id, Uuid, one_of, results_of
from sandbox.domain.payout import COLUMNS, Payout, metadata_pair_id, to_payout
from sandbox.domain.payout_commands import DECISIONS, CreatePayout, CreatePayouts, NewPayout, TransitionPayout
from sandbox.domain.payout_states import STATUSES
from sandbox.domain.scenario_engine import HEADER
from sandbox.domain.shown import shown
from sandbox.domain.trace import derive
from sandbox.domain.unit import CommandResult, RequestContext
from sandbox.http.body import decode, decode_items
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import DATED_PAGE, Operation, either, get, list_of_choices, parameter, post
from sandbox.http.paging import MAX_SCANNED, Page, PageWindow, page, selected
from sandbox.http.query_errors import entries
from sandbox.http.request import Request
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.large_work import LARGE_BATCH, READS, compute
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.directory.destination import PSP_DESTINATIONS, PSP_PAYOUT, destination_errors
from sandbox.payouts.reads import PayoutReads, not_found
from sandbox.payouts.requests import MAX_BATCH_SIZE, CreatePayoutBody, CreatePayoutsBody, new_payout
from sandbox.payouts.search import BY_REFERENCE, NARROWING, filter_payouts, narrowing, search_payouts
from sandbox.payouts.waiting import PayoutWaits
from sandbox.unit_of_work.runner import UnitOfWorkRunner

_SQL: Final = read_statements(__name__, columns=COLUMNS)


EXAMPLE: Final = {
    "merchant_reference": "INV-1001",
    "amount": "1500.00",
    "dest_type": "BANK",
    "bank_code": "HBL",
    "account_number": "12345678900001",
    "account_title": "AYESHA KHAN",
}
DEST_TYPES: Final = get_args(DestType)
MAX_WAIT_SECONDS: Final = 30
DEFAULT_WAIT: Final = 10
"""How long to wait for a status in seconds, if the request has no `timeout`."""
_LINKS: Final = {
    "get": ("get_payout", "payout_id"),
    "timeline": ("get_payout_timeline", "payout_id"),
    "cancel": ("cancel_payout", "payout_id"),
    "approve": ("approve_payout", "payout_id"),
    "reject": ("reject_payout", "payout_id"),
    "reinitiate": ("reinitiate_payout", "payout_id"),
}


class CreatedPayout(msgspec.Struct):
    """The result of a batch item that was created."""

    status: Literal[201]
    payout: Payout


class PayoutResults(msgspec.Struct):
    """The result of each item of a batch, in order."""

    results: Annotated[list[CreatedPayout], results_of("CreatedPayout", MAX_BATCH_SIZE)]


_SCENARIO: Final = HEADER.lower()


def _transition_operation(method: str, action: str, summary: str, *errors: str) -> Operation:
    return Operation(
        method, f"/api/v1/payouts/{{payout_id}}/{action}", summary, {200: Payout}, EmptyBody, psp=f"payouts {action}",
        errors=("INVALID_STATE", *errors),
        access="admin" if action in DECISIONS else "member",
    )  # fmt: skip


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

    def _check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in a create request that its schema cannot express."""
        return destination_errors(fields, self._directory)

    @post(
        "/api/v1/payouts",
        "Create a payout",
        {201: Payout},
        CreatePayoutBody,
        errors=("DUPLICATE_REFERENCE", "INSUFFICIENT_BALANCE"),
        example=EXAMPLE,
        links=_LINKS,
        check=_check,
        description="The last four digits of the account number choose the scenario, unless an `X-Sandbox-Scenario` header "
        "names one. See the list of scenarios.",
        psp=either(
            "payouts create {amount} {account_number}",
            *PSP_DESTINATIONS,
            rest=PSP_PAYOUT + " --scenario {scenario}",
        ),
    )
    async def create_payout(self, request: Request, body: CreatePayoutBody) -> CommandResult:
        """Create one payout. Raises VALIDATION_ERROR. Other refusals, such as INSUFFICIENT_BALANCE, are returned."""
        new = new_payout(body, self._directory, request.header(_SCENARIO))
        return await self._work.submit(CreatePayout(request.context, new))

    @post(
        "/api/v1/payouts/batch",
        "Create up to 1000 payouts, each independently",
        {200: PayoutResults},
        CreatePayoutsBody,
        example={"payouts": [EXAMPLE]},
        description="Results are in the order of the items. An invalid item is reported in its result and does not stop "
        "the others. The whole request is refused only if it is not valid JSON or not a list of 1 to 1000 items. "
        "The body is limited to 2 MiB.",
        psp="payouts batch {payouts:file=payouts.csv} --scenario {scenario}",
    )
    async def create_payouts(self, request: Request, body: CreatePayoutsBody) -> CommandResult:
        """Create up to 1000 payouts independently; return the result of each, in order."""
        context, scenario_header = request.context, request.header(_SCENARIO)

        def read(raw: bytes) -> NewPayout:
            return new_payout(decode(self._item_decoder, raw, self._check), self._directory, scenario_header)

        is_large = len(body.payouts) > LARGE_BATCH
        items = await compute(context.merchant_id, lambda: decode_items("payouts", body.payouts, read), is_large=is_large)
        return await self._work.submit(CreatePayouts(context, items))

    @get(
        "/api/v1/payouts",
        "List payouts, newest first",
        {200: list[Payout]},
        query=(
            *DATED_PAGE,
            parameter("status", "Only payouts with one of these statuses.", **list_of_choices(STATUSES)),
            parameter(
                "metadata",
                "Only payouts with this pair in their metadata: `metadata[order]=17`.",
                type="object",
                propertyNames={"type": "string", "minLength": 1, "maxLength": 64},
                additionalProperties={"type": "string", "maxLength": 500},
                maxProperties=20,
            ),
            parameter("dest_type", "Only payouts to this type of destination.", type="string", enum=list(DEST_TYPES)),
            parameter("merchant_reference", "Only the payout with this reference.", type="string", minLength=1, maxLength=64),
            parameter("user_id", "Only payouts of this user.", type="string", format="uuid"),
            parameter(
                "failure_code",
                f"Only payouts with this failure code. Like the next two, this filter reads {MAX_SCANNED} payouts a page: the "
                "page then ends, even if it is empty, and the next page continues.",
                type="string",
                minLength=1,
                maxLength=64,
            ),
            parameter("bank_code", "Only payouts to this bank.", type="string", minLength=1, maxLength=64),
            parameter("wallet_code", "Only payouts to this wallet.", type="string", minLength=1, maxLength=64),
            parameter(
                "q",
                "Only payouts that this text finds. First those that it identifies, however old they are: by merchant "
                "reference, by the beginning of the id, or by the user's id or external id. Then those whose reference, "
                "account number, account title or id contains it, or whose amount it is. Both are newest first. A page that "
                f"has searched {MAX_SCANNED} payouts ends there, even if it is empty; the next page continues.",
                type="string",
                minLength=1,
                maxLength=100,
            ),
        ),
        psp="payouts list --reference {merchant_reference} --search {q} --bank {bank_code} --wallet {wallet_code}",
        columns="merchant_reference id created_at amount account_number status failure_code",
    )
    async def list_payouts(self, merchant_id: str, window: PageWindow, query: Mapping[str, str]) -> Page:
        """Return a page of payouts, newest first. A payout must match all filters of the query."""
        statuses, dest_types = selected(query, "status", STATUSES), selected(query, "dest_type", DEST_TYPES)
        if text := query.get("q", "").strip():
            async with READS.place(merchant_id):
                return await search_payouts(merchant_id, window, text, statuses, dest_types, query)
        if not query.keys().isdisjoint(NARROWING):
            async with READS.place(merchant_id):
                return await filter_payouts(merchant_id, window, statuses, dest_types, query)
        fetch_limit = window.limit + 1
        bounds = (window.before, window.since)
        reference, user_id = query.get("merchant_reference"), query.get("user_id")
        metadata = entries(query, "metadata")
        wanted = msgspec.json.encode(metadata).decode()
        arguments: tuple[Any, ...]
        if reference is not None:
            statement, arguments = BY_REFERENCE, (reference, statuses, dest_types, *bounds, user_id, wanted, *narrowing(query))
        elif metadata:
            pair = metadata_pair_id(*next(iter(metadata.items())))
            statement, arguments = _SQL["list_by_metadata"], (pair, statuses, dest_types, *bounds, fetch_limit, wanted, user_id)
        elif user_id is not None:
            statement, arguments = _SQL["list_by_user"], (user_id, statuses, dest_types, *bounds, fetch_limit)
        elif "status" in query or "dest_type" in query:
            statement, arguments = _SQL["list"], (statuses, dest_types, *bounds, fetch_limit)
        else:
            statement, arguments = _SQL["list_all"], (*bounds, fetch_limit)
        async with connection(merchant_id) as conn:
            found = [to_payout(record) for record in await conn.fetch(statement, merchant_id, *arguments)]
        return page(found, window.limit, [payout.id for payout in found])

    @get(
        "/api/v1/payouts/{payout_id}",
        "Get a payout, or first wait until it reaches a status",
        {200: Payout},
        may_wait=True,
        query=(
            parameter(
                "wait_for",
                "Delay the response until the payout is in one of these statuses, has been in one since it was last "
                "reinitiated, or has ended in another status (FAILED, CANCELLED, REJECTED, RETURNED).",
                **list_of_choices(STATUSES),
            ),
            parameter(
                "timeout",
                "Seconds of real time to wait. After that, the response is the payout in its current status.",
                type="number",
                minimum=0,
                maximum=MAX_WAIT_SECONDS,
                default=DEFAULT_WAIT,
            ),
        ),
        psp=either("payouts get {payout_id}", "--wait-for! {wait_for} --timeout {timeout}", ""),
    )
    async def get_payout(self, request: Request, payout_id: Uuid) -> Payout:
        """Return a payout, or with `wait_for`, first wait until it has reached a status. Raises NOT_FOUND."""
        if "wait_for" not in request.query:
            return await self._reads.require(request.merchant_id, payout_id)
        statuses = request.query["wait_for"].split(",")
        timeout = 0.0 if request.is_head else float(request.query.get("timeout", DEFAULT_WAIT))
        found = await self._waits.wait(request.merchant_id, payout_id, statuses, timeout)
        if found is None:
            raise not_found(payout_id)
        return found

    @get(
        "/api/v1/payouts/{payout_id}/timeline",
        "List all status changes of a payout, oldest first",
        {200: Timeline},
        psp="payouts timeline",
        columns="at from to cause scenario step event_id",
    )
    async def get_payout_timeline(self, merchant_id: str, payout_id: Uuid) -> Timeline:
        """Return all status changes of a payout, oldest first. Raises NOT_FOUND."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_SQL["timeline"], merchant_id, payout_id)
        if not records:  # every payout has at least the change that created it
            raise not_found(payout_id)
        return Timeline(
            [
                shown(TimelineEntry, record, traceparent=record["traceparent"] or derive(record["request_id"]))
                for record in records
            ]
        )

    @_transition_operation("POST", "cancel", "Cancel a payout")
    async def cancel_payout(self, context: RequestContext, payout_id: Uuid) -> CommandResult:
        """Cancel a payout. Refusals are returned."""
        return await self._work.submit(TransitionPayout(context, payout_id, "cancel"))

    @_transition_operation("POST", "reinitiate", "Retry a failed payout", "INSUFFICIENT_BALANCE")
    async def reinitiate_payout(self, context: RequestContext, payout_id: Uuid) -> CommandResult:
        """Reinitiate a payout. Refusals are returned."""
        return await self._work.submit(TransitionPayout(context, payout_id, "reinitiate"))

    @_transition_operation("PATCH", "approve", "Approve a payout")
    async def approve_payout(self, context: RequestContext, payout_id: Uuid) -> CommandResult:
        """Approve a payout. Refusals are returned."""
        return await self._work.submit(TransitionPayout(context, payout_id, "approve"))

    @_transition_operation("PATCH", "reject", "Reject a payout")
    async def reject_payout(self, context: RequestContext, payout_id: Uuid) -> CommandResult:
        """Reject a payout. Refusals are returned."""
        return await self._work.submit(TransitionPayout(context, payout_id, "reject"))
