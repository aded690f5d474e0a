"""The destination of a payout: its types in request bodies, and its validation against the directory. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from sandbox.domain.enumerations import DestType
from sandbox.domain.errors import invalid_fields
from sandbox.domain.fields import PRINTABLE
from sandbox.http.body_errors import FieldProblem, suggestion
from sandbox.payouts.directory.account_number import check_account_number
from sandbox.payouts.directory.banks_and_wallets import Directory

# These types check the format only. The directory checks that a code exists and that an account number matches it, because
# its messages are more helpful.
Code = Annotated[str, msgspec.Meta(min_length=1, max_length=20, pattern=PRINTABLE)]
AccountNumber = Annotated[
    str,
    msgspec.Meta(
        min_length=10,
        max_length=24,
        pattern=r"^[A-Z0-9]*\Z",
        extra={"must": "a string of 10 to 16 digits, or a Pakistani IBAN in capitals, without spaces or dashes"},
    ),
]
PSP_DESTINATIONS: Final = ("--bank! {bank_code} dest_type=BANK", "--wallet! {wallet_code} dest_type=WALLET")
"""How `psp` commands write a destination, by its type (`psp_line.py`)."""
PSP_PAYOUT: Final = (
    "--reference! {merchant_reference} --metadata {metadata:pairs} metadata?={} --title {account_title} currency?=PKR"
)
"""How `psp` commands write the rest of a payout."""


class VerifyAccountBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /verify-account`."""

    dest_type: DestType
    bank_code: Code | None = None
    wallet_code: Code | None = None
    account_number: AccountNumber


def destination(
    dest_type: str, bank_code: str | None, wallet_code: str | None, account_number: str, directory: Directory
) -> tuple[str | None, str | None]:
    """Return the directory's bank code and wallet code for a destination; one of them is None. Raises VALIDATION_ERROR."""
    fields = {
        "dest_type": dest_type, "bank_code": bank_code, "wallet_code": wallet_code, "account_number": account_number
    }  # fmt: skip
    errors = destination_errors(fields, directory)
    if errors:
        raise invalid_fields(errors)
    return known_codes(dest_type, bank_code, wallet_code, directory)


def destination_errors(fields: Mapping[str, Any], directory: Directory) -> list[FieldProblem]:
    """Return the validation errors in a destination. Skips absent fields, but `dest_type` requires its kind of code."""
    dest_type, account_number = fields.get("dest_type"), fields.get("account_number")
    errors: list[FieldProblem] = []
    iban_code = None
    for kind, name in (("BANK", "bank_code"), ("WALLET", "wallet_code")):
        code = fields.get(name)
        if dest_type not in (kind, None):
            errors += [(name, f"must be omitted when dest_type is {dest_type}")] if code is not None else []
        elif code is None:
            errors += [(name, f"is required when dest_type is {kind}")] if dest_type is not None else []
        else:
            found = directory.bank(code) if kind == "BANK" else directory.wallet(code)
            if found is None:
                errors.append((name, unknown_code(kind, code, directory)))
            elif dest_type is not None:
                iban_code = found.iban_code
    if account_number is not None:
        message = check_account_number(account_number, iban_code)
        errors += [] if message is None else [("account_number", message.rstrip("."))]
    return errors


def unknown_code(kind: str, code: str, directory: Directory) -> str:
    """Return the message for an unknown code: suggest the closest one, or else list all."""
    if kind == "BANK":
        codes, codes_and_aliases = [bank.code for bank in directory.banks], directory.bank_codes()
    else:
        codes = codes_and_aliases = [wallet.code for wallet in directory.wallets]
    cure = suggestion(code, codes_and_aliases) or f"; known codes: {', '.join(codes)} (see GET /api/v1/directory)"
    return f"is not a known {kind.lower()} code{cure}"


def known_codes(
    dest_type: str, bank_code: str | None, wallet_code: str | None, directory: Directory
) -> tuple[str | None, str | None]:
    """Return the directory's bank code and wallet code for a destination; one of them is None, or both if it is not known."""
    if dest_type == "BANK":
        bank = directory.bank(bank_code or "")
        return None if bank is None else bank.code, None
    wallet = directory.wallet(wallet_code or "")
    return None, None if wallet is None else wallet.code
