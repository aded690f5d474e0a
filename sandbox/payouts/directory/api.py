"""The operations on the directory: `/api/v1/directory` and `/api/v1/verify-account`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sandbox.domain.unit import NO_NEEDS, CommandResult, Needs, RequestContext, UnitOfWork
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import either, get, post
from sandbox.http.request import Request
from sandbox.payouts.directory.account_verification import Verification, verify
from sandbox.payouts.directory.banks_and_wallets import Directory, DirectoryJson
from sandbox.payouts.directory.destination import PSP_DESTINATIONS, VerifyAccountBody, destination, destination_errors
from sandbox.unit_of_work.runner import UnitOfWorkRunner


@dataclass(frozen=True, slots=True)
class VerifyAccount:
    """Return the result of a verification, which changes nothing. It is a command so that its idempotency key is stored."""

    context: RequestContext
    body: bytes
    needs: Needs = NO_NEEDS

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Return 200 with the result."""
        return CommandResult(200, self.body)


class DirectoryApi:
    """The operations on the directory."""

    def __init__(self, directory: Directory, work: UnitOfWorkRunner) -> None:
        self._directory = directory
        self._listing = directory.as_json()
        self._work = work

    def _check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        return destination_errors(fields, self._directory)

    @get("/api/v1/directory", "List banks and wallets that payouts can go to", {200: DirectoryJson}, psp="directory")
    async def get_directory(self, request: Request) -> DirectoryJson:
        return self._listing

    @post(
        "/api/v1/verify-account",
        "Check whether an account can be paid",
        {200: Verification},
        VerifyAccountBody,
        check=_check,
        example={"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"},
        psp=either("verify-account {account_number}", *PSP_DESTINATIONS),
    )
    async def verify_account(self, request: Request, body: VerifyAccountBody) -> CommandResult:
        bank_code, wallet_code = destination(
            body.dest_type, body.bank_code, body.wallet_code, body.account_number, self._directory
        )
        result = verify(self._directory, body.dest_type, bank_code or wallet_code or "", body.account_number)
        return await self._work.submit(VerifyAccount(request.context, msgspec.json.encode(result)))
