"""Payouts and payments: `/payout`, `/payments`, and what the aggregator has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from uuid import UUID

import msgspec

from sandbox.domain.errors import Problem, invalid_fields
from sandbox.domain.ids import MAX_ID, first_id_at
from sandbox.domain.money import InvalidAmountError, parse_amount
from sandbox.domain.payout import Payout
from sandbox.domain.payout_commands import NewPayout, create
from sandbox.domain.payout_states import STATUSES as NATIVE_STATUSES
from sandbox.domain.scenario_engine import HEADER
from sandbox.domain.unit import CommandResult, Needs, RequestContext, UnitOfWork
from sandbox.http.operation import parameter
from sandbox.http.request import Request
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.history import HistoryEntry, read_histories, read_numbered_page
from sandbox.server.dialects.dialect import Services
from sandbox.server.dialects.safepay.accounts import holder_of
from sandbox.server.dialects.safepay.declared import PAGE, operation, part_of
from sandbox.server.dialects.safepay.ids import from_msg_id, native, payout_of, reference
from sandbox.server.dialects.safepay.mapping import MAPPING, STATUSES, native_statuses
from sandbox.server.dialects.safepay.objects import Envelope, Payment, creditor_iban, paisa, payment

_encode: Final = msgspec.json.Encoder().encode
_EXAMPLE: Final = {
    "request_id": "7c0b9a52-5f3e-4d7c-9a34-0d1f6b6a2f10",
    "amount": "200",
    "creditor_iban": "PK93HABB0000000000000001",
}
_SCENARIO: Final = HEADER.lower()
_LEADING_ZEROS: Final = re.compile(r"^0+(?=[0-9])")
_HEX: Final = re.compile(r"[0-9a-f]{32}")
_REFERENCES: Final = ("uetr", "trace_reference", "msg_id", "instr_id", "end_to_end_id")
_NEVER_SET: Final = ("aggregator_merchant_id", "order_id", "pmt_inf_id", "qr_code_id")
"""Filters by fields that no payout has."""


class CreatePayoutBody(msgspec.Struct, kw_only=True):
    """The body of `POST /payout`. Unknown members are ignored."""

    request_id: Annotated[
        str,
        msgspec.Meta(
            min_length=36,
            max_length=36,
            pattern=r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z",
            description="Makes the request idempotent, for ever.",
            extra={"must": "a UUID of 36 characters"},
        ),
    ]
    amount: Annotated[
        str,
        msgspec.Meta(
            max_length=20,
            pattern=r"^[0-9]+(\.[0-9]{1,2})?\Z",
            description="In rupees.",
            extra={"must": "a string with an amount in rupees, such as 200 or 200.50"},
        ),
    ]
    creditor_iban: Annotated[str, msgspec.Meta(min_length=1, max_length=34)]


class Payments(msgspec.Struct):
    """Part of a list. `count` is the length of the whole list, up to 10100."""

    payments: list[Payment]
    count: str


class Charges(msgspec.Struct, kw_only=True):
    """What a payment costs, in paisa: nothing."""

    payment_id: str
    gross_amount: str
    currency: str = "PKR"
    fee_amount: str = "0"
    net_amount: str
    sales_tax_on_fee_amount: str = "0"
    sales_tax_withholding_amount: str = "0"
    income_tax_withholding_amount: str = "0"
    digital_tax_amount: str = "0"


@dataclass(frozen=True, slots=True)
class CreatePayment:
    """Create a payout, and respond with the payment that it is."""

    context: RequestContext
    new: NewPayout
    directory: Directory

    @property
    def needs(self) -> Needs:
        """Claim the new reference."""
        return Needs(references=(self.new.merchant_reference,))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Create the payout. Raises as `sandbox.domain.payout_commands.create` does."""
        made = create(unit, self.new, self.context).payout
        history = [HistoryEntry(event.id, event.to_status or "", unit.now_text) for event in unit.events[-1:]]
        return CommandResult(200, _encode(Envelope(payment(self.directory, unit.merchant_id, made, history))))


class PaymentApi:
    """The operations on payouts and payments."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._directory = services.directory

    @operation("POST", "/payout", "Create a payout", Payment, CreatePayoutBody, example=_EXAMPLE)
    async def create_payout(
        self, request: Request, aggregator_id: str, body: CreatePayoutBody
    ) -> CommandResult | Envelope[Payment]:
        """Create a payout, or return the one that this `request_id` has created. Raises IDEMPOTENCY_KEY_REUSED."""
        new = self._new_payout(body, request.header(_SCENARIO))
        result = await self._services.work.submit(CreatePayment(request.context, new, self._directory))
        if result.status != 409:
            return result
        # The reference is unique for ever, which native keys are not. The answer is the payment as it is now.
        made = await self._services.reads.find(request.merchant_id, body.request_id)
        if made is None:
            return result
        if (made.amount, creditor_iban(self._directory, made)) != (new.amount, new.account_number):
            raise Problem("IDEMPOTENCY_KEY_REUSED")
        return Envelope(await self._payment(request.merchant_id, made))

    @operation(
        "GET", "/payments", "List payments, newest first", Payments,
        query=(
            *PAGE,
            *(parameter(name, "Only payments with this value.") for name in (*_NEVER_SET, "request_id", "payment_id")),
            *(parameter(name, "Only the payment with this reference.") for name in _REFERENCES),
            parameter("status", "Only payments in this status.", type="string", enum=STATUSES),
            parameter("type", "Only payments of this type.", type="string", enum=MAPPING.documented["types"]),
            parameter("start_date", "Created at or after this time, in Unix seconds.", type="integer", minimum=0),
            parameter("end_date", "Created at or before this time, in Unix seconds.", type="integer", minimum=0),
        ),
    )  # fmt: skip
    async def list_payments(self, request: Request, aggregator_id: str) -> Envelope[Payments]:
        query, merchant_id = request.query, request.merchant_id
        limit, offset = part_of(query)
        statuses = native_statuses(query["status"]) if "status" in query else list(NATIVE_STATUSES)
        since = first_id_at(1000 * int(query.get("start_date", 0)))
        before = first_id_at(1000 * (int(query["end_date"]) + 1)) if "end_date" in query else MAX_ID
        if any(query.get(name) for name in _NEVER_SET) or query.get("type", "PAYOUT") != "PAYOUT" or not statuses:
            return Envelope(Payments([], "0"))
        named = await self._named(merchant_id, query)
        if named is not None:
            found = [p for p in named if p.status in statuses and since <= p.id < before]
            count, found = len(found), found[offset : offset + limit]
        else:
            numbered = await read_numbered_page(self._services.reads, merchant_id, limit, offset, statuses, before, since)
            count, found = numbered.total, list(numbered.payouts)
        histories = await read_histories(merchant_id, [p.id for p in found])
        shown = [payment(self._directory, merchant_id, p, histories[p.id]) for p in found]
        return Envelope(Payments(shown, str(count)))

    @operation("GET", "/payments/{payment_id}", "Get a payment", Payment)
    async def get_payment(self, request: Request, aggregator_id: str, payment_id: str) -> Envelope[Payment]:
        found = await self._find(request.merchant_id, payment_id)
        return Envelope(await self._payment(request.merchant_id, found))

    @operation("GET", "/payments/{payment_id}/charges", "Get what a payment costs", Charges)
    async def get_payment_charges(self, request: Request, aggregator_id: str, payment_id: str) -> Envelope[Charges]:
        amount = paisa((await self._find(request.merchant_id, payment_id)).amount)
        return Envelope(Charges(payment_id=payment_id, gross_amount=amount, net_amount=amount))

    def _new_payout(self, body: CreatePayoutBody, scenario_header: str | None) -> NewPayout:
        errors: list[tuple[str, str]] = []
        amount, holder = None, None
        try:
            amount = parse_amount(_encode(_LEADING_ZEROS.sub("", body.amount)))
        except InvalidAmountError:
            errors.append(("amount", "must be more than 0 and at most 999999999999.99"))
        try:
            holder = holder_of(self._directory, body.creditor_iban, "creditor_iban")
        except Problem as problem:
            errors += problem.errors
        if amount is None or holder is None:
            raise invalid_fields(errors)
        return NewPayout(
            merchant_reference=body.request_id,
            amount=amount,
            dest_type=holder.dest_type,
            bank_code=holder.bank_code,
            wallet_code=holder.wallet_code,
            account_number=holder.account_number,
            account_title=holder.account_title,
            metadata={},
            requires_approval=False,
            scenario_header=scenario_header,
            fails_unfunded=True,
        )

    async def _payment(self, merchant_id: str, found: Payout) -> Payment:
        histories = await read_histories(merchant_id, [found.id])
        return payment(self._directory, merchant_id, found, histories[found.id])

    async def _find(self, merchant_id: str, token: str) -> Payout:
        payout_id = native("pm", token)
        found = None if payout_id is None else await self._services.reads.get(merchant_id, payout_id)
        if found is None:
            raise Problem("NOT_FOUND")
        return found

    async def _named(self, merchant_id: str, query: Mapping[str, str]) -> list[Payout] | None:
        """Return the payouts that a filter names, of which there is at most one; None if no filter does."""
        ids = {_id_of(merchant_id, name, query[name]) for name in (*_REFERENCES, "payment_id") if query.get(name)}
        if query.get("request_id"):
            found = await self._services.reads.find(merchant_id, query["request_id"])
            return [found] if found is not None and ids <= {found.id} else []
        if not ids:
            return None
        if len(ids) > 1 or None in ids:
            return []
        only = await self._services.reads.get(merchant_id, ids.pop() or "")
        return [] if only is None else [only]


def _id_of(merchant_id: str, name: str, text: str) -> str | None:
    """Return the id of the payout whose filter `name` has this value, if there is one."""
    if name == "payment_id":
        return native("pm", text)
    kind = "uetr" if name == "end_to_end_id" else name
    given: UUID | None
    if name == "msg_id":
        given = from_msg_id(text)
    elif name in ("instr_id", "end_to_end_id"):
        given = UUID(hex=text) if _HEX.fullmatch(text) else None
    else:
        given = _uuid(text)
    found = None if given is None else payout_of(merchant_id, kind, given)
    return found if found is not None and reference(merchant_id, kind, found) == given else None


def _uuid(text: str) -> UUID | None:
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None
