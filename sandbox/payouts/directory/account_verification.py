"""Verify an account the way a bank would before a payout. The same account always gives the same result. Pure."""

import hashlib
from dataclasses import dataclass

from sandbox.domain.enumerations import DestType
from sandbox.payouts.directory.account_number import scenario_suffix
from sandbox.payouts.directory.banks_and_wallets import Directory

REFUSALS = {
    "0003": "BANK_REJECTED",
    "0005": "ACCOUNT_BLOCKED",
    "0006": "ACCOUNT_NOT_FOUND",
    "0007": "ACCOUNT_CLOSED",
    "0008": "ACCOUNT_BLOCKED",
}
"""The last four digits of an invalid account → its failure code. All other accounts are valid."""

_GIVEN_NAMES = (
    "AHMED", "AISHA", "ALI", "AMINA", "ASAD", "BILAL", "FAISAL", "FATIMA", "HAMZA", "HASSAN", "HINA", "IMRAN",
    "KAMRAN", "KHADIJA", "MARIAM", "MUHAMMAD", "NADIA", "OMAR", "RABIA", "SADIA", "SANA", "USMAN", "ZAINAB", "ZUBAIR",
)  # fmt: skip
_FAMILY_NAMES = (
    "ABBASI", "AFRIDI", "ANSARI", "AWAN", "BALOCH", "BHATTI", "BUTT", "CHAUDHRY", "DURRANI", "FAROOQI", "HASHMI",
    "IQBAL", "JAVED", "KHAN", "MALIK", "MEMON", "MIRZA", "MUGHAL", "QURESHI", "RAJPUT", "SHAH", "SHEIKH", "SIDDIQUI",
    "YOUSAFZAI",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verification:
    """The response to `POST /verify-account`."""

    valid: bool
    account_title: str | None
    """The account holder's name; None if the account is not valid."""
    reason: str | None
    """Why the account is not valid: the `failure_code` that a payout to it would get."""
    dest_type: DestType
    bank_code: str | None
    """The bank's main code, even if the request used an alias."""
    wallet_code: str | None
    account_number: str


def verify(directory: Directory, dest_type: DestType, code: str, account_number: str) -> Verification:
    """Verify an account number, which `check_account_number` has accepted, at the bank or wallet `code`.

    Raises LookupError if the directory has no such bank or wallet.
    """
    destination = directory.bank(code) if dest_type == "BANK" else directory.wallet(code)
    if destination is None:
        raise LookupError(f"no {dest_type.lower()} has the code {code!r}")
    reason = REFUSALS.get(scenario_suffix(account_number))
    return Verification(
        valid=reason is None,
        account_title=_account_title(account_number) if reason is None else None,
        reason=reason,
        dest_type=dest_type,
        bank_code=destination.code if dest_type == "BANK" else None,
        wallet_code=destination.code if dest_type == "WALLET" else None,
        account_number=account_number,
    )


def _account_title(account_number: str) -> str:
    digest = hashlib.sha256(account_number.encode()).digest()
    given_name = _GIVEN_NAMES[digest[0] % len(_GIVEN_NAMES)]
    family_name = _FAMILY_NAMES[digest[1] % len(_FAMILY_NAMES)]
    return f"{given_name} {family_name}"
