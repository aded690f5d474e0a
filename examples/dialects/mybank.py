"""A dialect of one's own: "My Bank", which takes transfers in paisa, answers in capitals, and sends its own webhooks."""

from typing import Any

import msgspec

from sandbox.domain.errors import Problem
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import Operation
from sandbox.http.request import Request
from sandbox.payouts.requests import CreatePayoutBody
from sandbox.server.dialects.dialect import Dialect, PayoutEvent, Refusal, Services
from sandbox.webhooks.endpoints.requests import DialectEndpoint
from sandbox.webhooks.signing.dialects import CustomSigning

NAME = "mybank"
STATES = {"SUCCESS": "BOOKED", "FAILED": "BOUNCED", "RETURNED": "RECALLED", "CANCELLED": "VOID", "REJECTED": "VOID"}
SIGNING = CustomSigning(header="X-MyBank-Mac", algorithm="sha512", encoding="base64", template="{body}")
CODES = {401: "WHO_ARE_YOU", 404: "NO_SUCH_THING", 409: "SEEN_BEFORE"}
encode = msgspec.json.Encoder().encode


class Order(msgspec.Struct):
    ref: str
    paisa: int
    account: str


class Hook(msgspec.Struct):
    url: str


class Transfer(msgspec.Struct):
    ref: str
    state: str
    paisa: int


def transfer(payout: Any) -> Transfer:
    return Transfer(payout.merchant_reference, STATES.get(payout.status, "OPEN"), int(payout.amount * 100))


def operation(method: str, path: str, summary: str, response: Any, body: Any = None) -> Operation:
    return Operation(method, f"/mybank{path}", summary, {200: response}, body, dialect=NAME)


class Transfers:
    def __init__(self, services: Services) -> None:
        self.services = services

    @operation("POST", "/transfers", "Send a transfer", Transfer, Order)
    async def send(self, request: Request, body: Order) -> CommandResult | Transfer:
        amount = msgspec.Raw(f'"{body.paisa // 100}.{body.paisa % 100:02}"'.encode())
        wanted = CreatePayoutBody(
            merchant_reference=body.ref, amount=amount, dest_type="BANK", bank_code="HBL", account_number=body.account
        )
        result = await self.services.payouts.create_payout(request, wanted)
        return result if result.status >= 400 else await self.find(request, body.ref)

    @operation("GET", "/transfers/{ref}", "Get a transfer", Transfer)
    async def get(self, request: Request, ref: str) -> Transfer:
        return await self.find(request, ref)

    @operation("POST", "/hooks", "Have events sent to a URL", dict[str, str], Hook)
    async def hook(self, request: Request, body: Hook) -> CommandResult | dict[str, str]:
        wanted = DialectEndpoint(url=body.url, signing="custom", custom_signing=SIGNING, wire={"dialect": NAME})
        result = await self.services.endpoints.create_webhook_endpoint(request.context, wanted)
        if result.status >= 400:
            return result
        return {"secret": msgspec.json.decode(result.body)["secret"]}

    async def find(self, request: Request, ref: str) -> Transfer:
        found = await self.services.reads.find(request.merchant_id, ref)
        if found is None:
            raise Problem("NOT_FOUND")
        return transfer(found)


def refuse(refusal: Refusal) -> tuple[int, bytes]:
    fields = [field.upper() for field, _ in refusal.errors]
    return refusal.status, encode({"ERROR": CODES.get(refusal.status, "NO"), "FIELDS": fields})


def event(happened: PayoutEvent) -> bytes:
    return encode(transfer(happened.payout))


DIALECT = Dialect(
    name=NAME,
    title="My Bank",
    prefix="/mybank/",
    key_header="X-MyBank-Key",
    apis=lambda services: [Transfers(services)],
    guard=lambda request: None,
    refuse=refuse,
    event=event,
)
