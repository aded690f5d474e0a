"""`/api/v1/directory` and `/api/v1/verify-account`."""

from dataclasses import dataclass

import msgspec
from litestar import Router, get, post
from litestar.response.base import ASGIResponse

from sandbox.domain.account_verification import Verification, verify
from sandbox.domain.directory import Directory, DirectoryJson
from sandbox.domain.unit import NO_NEEDS, CommandResult, Needs, RequestContext, UnitOfWork
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import Operation
from sandbox.http.paging import query
from sandbox.payouts.requests import VerifyAccountBody, destination, destination_faults
from sandbox.unit_of_work.runner import UnitsOfWork


@dataclass(frozen=True, slots=True)
class VerifyAccount:
    """The answer to a verification, which moves nothing; as a command its idempotency key is kept like any other."""

    context: RequestContext
    body: bytes
    needs: Needs = NO_NEEDS

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Answer."""
        return CommandResult(200, self.body)


def directory_router(gate: RequestGuard, directory: Directory, work: UnitsOfWork) -> Router:
    """The routes of the directory."""
    body_decoder = msgspec.json.Decoder(VerifyAccountBody)
    listing = directory.as_json()

    @get(
        "/directory", operation_id="get_directory",
        opt={"operation": Operation("List banks and wallets that payouts can go to", {200: DirectoryJson})},
    )  # fmt: skip
    async def get_directory(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        query(request, ())
        return ok(listing)

    @post(
        "/verify-account", operation_id="verify_account", status_code=200,
        opt={"operation": Operation("Check whether an account can be paid", {200: Verification}, VerifyAccountBody,
             idempotency="required",
             example={"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"})},
    )  # fmt: skip
    async def verify_account(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        asked, key = await gate.parse(request, body_decoder, check=lambda members: destination_faults(members, directory))
        bank_code, wallet_code = destination(
            asked.dest_type, asked.bank_code, asked.wallet_code, asked.account_number, directory
        )
        result = verify(directory, asked.dest_type, bank_code or wallet_code or "", asked.account_number)
        command = VerifyAccount(gate.context(request, key), msgspec.json.encode(result))
        return answered(await work.submit(command))

    return Router("/api/v1", route_handlers=[get_directory, verify_account])
