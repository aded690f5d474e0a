"""Bodies that ask for payouts, and what they must be. Pure."""

from typing import Annotated, Final, Literal

import msgspec

from sandbox.directory.catalogue import Directory
from sandbox.directory.iban import check_account_number
from sandbox.errors import Problem, invalid
from sandbox.fields import Text64, Text140, Text500
from sandbox.money import InvalidAmountError, parse_amount
from sandbox.payouts.commands import NewPayout

Code = Annotated[str, msgspec.Meta(min_length=2, max_length=20, pattern=r"^[A-Z0-9]*\Z")]
AccountNumber = Annotated[str, msgspec.Meta(min_length=10, max_length=24, pattern=r"^[A-Z0-9]*\Z")]
Metadata = Annotated[dict[Text64, Text500], msgspec.Meta(max_length=20)]

LARGEST_BATCH: Final = 1000


class CreatePayoutBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /payouts`."""

    merchant_reference: Text64
    amount: msgspec.Raw
    currency: Literal["PKR"] = "PKR"
    dest_type: Literal["BANK", "WALLET"]
    bank_code: Code | None = None
    wallet_code: Code | None = None
    account_number: AccountNumber
    account_title: Text140 | None = None
    metadata: Metadata | None = None
    requires_approval: bool = False


class CreatePayoutsBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /payouts/batch`; each item is looked at on its own."""

    payouts: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=LARGEST_BATCH)]


class VerifyAccountBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /verify-account`."""

    dest_type: Literal["BANK", "WALLET"]
    bank_code: Code | None = None
    wallet_code: Code | None = None
    account_number: AccountNumber


def new_payout(body: CreatePayoutBody, directory: Directory, scenario_header: str | None = None) -> NewPayout:
    """A payout to create; `scenario_header` is the request's X-Sandbox-Scenario.

    Raises VALIDATION_ERROR, naming every member at fault.
    """
    errors: list[tuple[str, str]] = []
    amount = None
    try:
        amount = parse_amount(bytes(body.amount))
    except InvalidAmountError as error:
        errors.append(("amount", str(error)))
    bank_code, wallet_code = None, None
    try:
        bank_code, wallet_code = destination(body.dest_type, body.bank_code, body.wallet_code, body.account_number, directory)
    except Problem as problem:
        errors += problem.errors
    if errors or amount is None:
        raise Problem("VALIDATION_ERROR", "; ".join(f"{field} {message}" for field, message in errors) + ".", errors=errors)
    return NewPayout(
        merchant_reference=body.merchant_reference,
        amount=amount,
        dest_type=body.dest_type,
        bank_code=bank_code,
        wallet_code=wallet_code,
        account_number=body.account_number,
        account_title=body.account_title,
        metadata=body.metadata or {},
        requires_approval=body.requires_approval,
        scenario_header=scenario_header,
    )


def destination(
    dest_type: str, bank_code: str | None, wallet_code: str | None, account_number: str, directory: Directory
) -> tuple[str | None, str | None]:
    """The directory's own bank and wallet codes of a destination, one of them None. Raises VALIDATION_ERROR."""
    if dest_type == "BANK":
        if wallet_code is not None:
            raise invalid("wallet_code", "is not for dest_type BANK")
        bank = directory.bank(bank_code) if bank_code is not None else None
        if bank is None:
            raise invalid("bank_code", "must be a code or alias of GET /api/v1/directory")
        found: tuple[str | None, str | None] = (bank.code, None)
        iban_code = bank.iban_code
    else:
        if bank_code is not None:
            raise invalid("bank_code", "is not for dest_type WALLET")
        wallet = directory.wallet(wallet_code) if wallet_code is not None else None
        if wallet is None:
            raise invalid("wallet_code", "must be a code of GET /api/v1/directory")
        found, iban_code = (None, wallet.code), wallet.iban_code
    wrong = check_account_number(account_number, iban_code)
    if wrong is not None:
        raise invalid("account_number", wrong.rstrip("."))
    return found
