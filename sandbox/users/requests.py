"""Request bodies that create and change users and move money in their wallets, and their validation. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.enumerations import DestType, RecordedType
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Amount, Name, Text64, about
from sandbox.http.body_errors import FieldProblem
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.directory.destination import AccountNumber, Code, destination, destination_errors

MAX_BATCH_SIZE = 1000

# Printable ASCII without the slash: the aggregator accepts these as user ids, and they fit into its paths.
VendorUserId = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[ -.0-~]*\Z",
        extra={"must": "a string of 1 to 64 printable ASCII characters other than /"},
    ),
]


class DestinationBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Where a user's payouts go."""

    dest_type: DestType
    bank_code: Code | None = None
    wallet_code: Code | None = None
    account_number: AccountNumber


class CreateUserBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /users`. `vendor_user_id` is the user's id in the vendor feed; it defaults to the user's id."""

    name: Name
    external_id: Annotated[Text64 | None, about("Your own id for the user.")] = None
    vendor_user_id: Annotated[VendorUserId | None, about("The user's id at the vendor.")] = None
    destination: DestinationBody | None = None


class ChangeUserBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `PATCH /users/{user_id}`. Omitted fields keep their value; null removes it."""

    name: Annotated[Name | UnsetType, about("A new name.")] = UNSET
    external_id: Annotated[Text64 | UnsetType | None, about("Your own id for the user.")] = UNSET
    destination: DestinationBody | UnsetType | None = UNSET


class CreateUsersBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /users/batch`; each item is validated on its own."""

    users: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MAX_BATCH_SIZE)]


class CreateTransactionBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /users/{user_id}/transactions`."""

    type: Annotated[RecordedType, about("What to record.")]
    amount: Amount
    reference: Annotated[Text64 | None, about("Your own reference.")] = None


class RequestPayoutBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /users/{user_id}/payout`."""

    amount: Amount


@dataclass(frozen=True, slots=True)
class NewUser:
    """A validated user to create. Codes are the directory's own, not aliases."""

    name: str
    external_id: str | None
    vendor_user_id: str | None
    dest_type: str | None = None
    bank_code: str | None = None
    wallet_code: str | None = None
    account_number: str | None = None


def new_user(body: CreateUserBody, directory: Directory) -> NewUser:
    """Return the user to create. Raises VALIDATION_ERROR with every invalid field of the destination."""
    where = body.destination
    if where is None:
        return NewUser(body.name, body.external_id, body.vendor_user_id)
    codes = user_codes(where, directory)
    return NewUser(body.name, body.external_id, body.vendor_user_id, where.dest_type, *codes, where.account_number)


def user_codes(where: DestinationBody, directory: Directory) -> tuple[str | None, str | None]:
    """Return the directory's bank code and wallet code for a user's destination; one is None. Raises VALIDATION_ERROR."""
    try:
        return destination(where.dest_type, where.bank_code, where.wallet_code, where.account_number, directory)
    except Problem as problem:
        raise problem.within("destination") from None


def user_errors(fields: Mapping[str, Any], directory: Directory) -> list[FieldProblem]:
    """Return the validation errors that the schema of a body that creates or changes a user cannot express."""
    where = fields.get("destination")
    if not isinstance(where, dict):
        return []
    return [(f"destination.{field}", message) for field, message in destination_errors(where, directory)]
