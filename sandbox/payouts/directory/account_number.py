"""Check account numbers: Pakistani IBANs, and plain ones of 10 to 16 digits. Pure.

ISO 13616-1 defines IBANs; its registry gives Pakistan's layout as `PK2!n4!a16!c`, 24 characters. ISO/IEC 7064, MOD 97-10,
defines the check digits: move the first four characters to the end and replace each letter with two digits (A = 10 … Z = 35);
the number modulo 97 must be 1. Valid check digits are 02 to 98, since they are computed as 98 minus a remainder. 00, 01 and 99
have the same remainder as 97, 98 and 02, but are never valid.

The patterns list their characters because `str.isdigit`, `str.isalnum` and `\\d` accept digits and letters of other scripts.
Use the patterns with `fullmatch`, because `$` also matches before a final newline.
"""

import re
from string import ascii_uppercase

IBAN_COUNTRY = "PK"
IBAN_LENGTH = 24

_CHARACTERS = re.compile(r"[A-Z0-9]*")
_LAYOUT = re.compile(r"PK(?P<check_digits>[0-9]{2})(?P<bank>[A-Z]{4})(?P<account>[A-Z0-9]{16})")
_PLAIN_ACCOUNT = re.compile(r"[0-9]{10,16}")
_FOUR_DIGITS = re.compile(r"[0-9]{4}")
_LETTERS_AS_NUMBERS = str.maketrans({letter: str(number) for number, letter in enumerate(ascii_uppercase, start=10)})


def looks_like_iban(text: str) -> bool:
    """Return whether `text` is meant as an IBAN, valid or not. A plain account number has no letters."""
    return text.startswith(IBAN_COUNTRY)


def check_iban(text: str, bank_iban_code: str | None) -> str | None:
    """Return a sentence that says what is wrong with a Pakistani IBAN and how to fix it; None if it is valid.

    `bank_iban_code` is the bank whose IBAN it must be, as four letters; None accepts any bank.
    """
    if _CHARACTERS.fullmatch(text) is None:
        return "An IBAN has only the letters A-Z and the digits 0-9; write it in capitals, without spaces or dashes."
    if not looks_like_iban(text):
        return "Only Pakistani IBANs are accepted; send one that starts with PK."
    if len(text) != IBAN_LENGTH:
        return f"A Pakistani IBAN has {IBAN_LENGTH} characters, but this one has {len(text)}; send the complete IBAN."
    layout = _LAYOUT.fullmatch(text)
    if layout is None:
        return (
            "A Pakistani IBAN is PK, two check digits, the bank's four letters, then sixteen letters or digits; "
            "correct the part that differs."
        )
    if not 2 <= int(layout["check_digits"]) <= 98 or _remainder(text) != 1:
        return "The IBAN's check digits do not match; check it for a mistyped character."
    if bank_iban_code is not None and layout["bank"] != bank_iban_code:
        return (
            f"The IBAN belongs to bank {layout['bank']}, but the IBANs of the chosen bank or wallet contain {bank_iban_code}; "
            "correct one of the two."
        )
    return None


def check_account_number(text: str, bank_iban_code: str | None) -> str | None:
    """Like `check_iban`, for an account number: 10 to 16 digits, or a Pakistani IBAN."""
    if looks_like_iban(text):
        return check_iban(text, bank_iban_code)
    if _PLAIN_ACCOUNT.fullmatch(text) is None:
        return "An account number is 10 to 16 digits, or a Pakistani IBAN in capitals; write it without spaces or dashes."
    return None


def iban_of(bank_iban_code: str, account_number: str) -> str:
    """Return the IBAN of an account number of at most 16 digits; an IBAN is returned as it is."""
    if looks_like_iban(account_number):
        return account_number
    rest = f"{bank_iban_code}{account_number.zfill(16)}"
    return f"{IBAN_COUNTRY}{98 - _remainder(f'{IBAN_COUNTRY}00{rest}'):02}{rest}"


def scenario_suffix(account_number: str) -> str:
    """Return the last four digits of an account number, which choose its scenario.

    Return an empty text, which matches no suffix, if an IBAN does not end in four digits.
    """
    suffix = account_number[-4:]
    return suffix if _FOUR_DIGITS.fullmatch(suffix) else ""


def _remainder(iban: str) -> int:
    rearranged = iban[4:] + iban[:4]
    return int(rearranged.translate(_LETTERS_AS_NUMBERS)) % 97
