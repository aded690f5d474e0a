"""Request bodies that create payouts, and their validation. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from sandbox.domain.enumerations import DestType
from sandbox.domain.errors import invalid_fields
from sandbox.domain.fields import Amount, Text64, Text140, Text500, about
from sandbox.domain.money import InvalidAmountError, parse_amount
from sandbox.domain.payout_commands import NewPayout
from sandbox.http.body_errors import FieldProblem
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.directory.destination import AccountNumber, Code, destination_errors, known_codes

Metadata = Annotated[dict[Text64, Text500], msgspec.Meta(max_length=20)]

MAX_BATCH_SIZE: Final = 1000


class CreatePayoutBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /payouts`."""

    merchant_reference: Text64
    amount: Amount
    currency: Literal["PKR"] = "PKR"
    dest_type: DestType
    bank_code: Code | None = None
    wallet_code: Code | None = None
    account_number: AccountNumber
    account_title: Annotated[Text140 | None, about("The account's title.")] = None
    metadata: Annotated[Metadata | None, about("Your own data on the payout.")] = None
    requires_approval: Annotated[bool, about("Hold the payout until it is approved.")] = False


class CreatePayoutsBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /payouts/batch`; each item is validated on its own."""

    payouts: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MAX_BATCH_SIZE)]


def new_payout(body: CreatePayoutBody, directory: Directory, scenario_header: str | None = None) -> NewPayout:
    """Return the payout to create. `scenario_header` is the request's X-Sandbox-Scenario.

    Raises VALIDATION_ERROR with every invalid field.
    """
    errors: list[FieldProblem] = []
    try:
        amount = parse_amount(bytes(body.amount))
    except InvalidAmountError as error:
        errors.append(("amount", str(error)))
    codes = known_codes(body.dest_type, body.bank_code, body.wallet_code, directory)
    fields = {
        "dest_type": body.dest_type,
        "bank_code": body.bank_code,
        "wallet_code": body.wallet_code,
        "account_number": body.account_number,
    }
    errors += destination_errors(fields, directory)
    if errors:
        raise invalid_fields(errors)
    bank_code, wallet_code = codes
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


def failure_errors(fields: Mapping[str, Any], failing: Sequence[str]) -> list[FieldProblem]:
    """Return the validation errors for a `failure_code` or `failure_reason` that is sent with a status outside `failing`."""
    status = fields.get("status")
    if status is None or status in failing:
        return []
    given = [name for name in ("failure_code", "failure_reason") if fields.get(name) is not None]
    return [(name, f"is only allowed if status is one of {', '.join(failing)}; omit it for {status}") for name in given]
