"""Account numbers: Pakistani IBANs, and plain ones of 10 to 16 digits.

An IBAN is defined by ISO 13616-1 (the registry gives Pakistan as `PK2!n4!a16!c`, 24 characters) and its check digits
by ISO/IEC 7064, MOD 97-10: with the first four characters moved to the end and each letter replaced by two digits
(A = 10 … Z = 35), the number leaves 1 when divided by 97. The check digits are 98 minus a remainder, so 02 to 98: that
00, 01 and 99 would leave 1 as well, in place of 97, 98 and 02, does not make them valid.

The patterns name their characters one by one because `str.isdigit`, `str.isalnum` and `\\d` take other scripts' too,
and they are used with `fullmatch` because `$` lets a newline pass.
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
    """Whether `text` is meant as an IBAN, right or wrong: a plain account number has no letters."""
    return text.startswith(IBAN_COUNTRY)


def check_iban(text: str, bank_iban_code: str | None) -> str | None:
    """What is wrong with a Pakistani IBAN and what to do about it, in one sentence; None if nothing is.

    With `bank_iban_code`, it must be an IBAN of that bank.
    """
    if _CHARACTERS.fullmatch(text) is None:
        return "An IBAN has only the letters A-Z and digits 0-9; write it in capitals, without spaces or dashes."
    if not looks_like_iban(text):
        return "A Pakistani IBAN starts with PK; send one that does."
    if len(text) != IBAN_LENGTH:
        return f"A Pakistani IBAN has {IBAN_LENGTH} characters but this one has {len(text)}; send all of it."
    layout = _LAYOUT.fullmatch(text)
    if layout is None:
        return (
            "A Pakistani IBAN is PK, two check digits, the bank's four letters and sixteen letters or digits; "
            "correct the part that differs."
        )
    if not 2 <= int(layout["check_digits"]) <= 98 or _remainder(text) != 1:
        return "The IBAN's check digits do not match the rest of it; look for a mistyped character."
    if bank_iban_code is not None and layout["bank"] != bank_iban_code:
        return (
            f"This is an IBAN of {layout['bank']} and the chosen bank or wallet has {bank_iban_code}; "
            "correct the one or the other."
        )
    return None


def check_account_number(text: str, bank_iban_code: str | None) -> str | None:
    """As `check_iban`, for whatever an `account_number` may be: 10 to 16 digits, or a Pakistani IBAN."""
    if looks_like_iban(text):
        return check_iban(text, bank_iban_code)
    if _PLAIN_ACCOUNT.fullmatch(text) is None:
        return (
            "An account number is 10 to 16 digits (0-9), or a Pakistani IBAN in capitals that starts with PK; "
            "write either without spaces or dashes."
        )
    return None


def scenario_suffix(account_number: str) -> str:
    """The last four digits of an account number, which choose its scenario.

    Empty, so that no suffix matches, if an IBAN does not end in four digits.
    """
    suffix = account_number[-4:]
    return suffix if _FOUR_DIGITS.fullmatch(suffix) else ""


def _remainder(iban: str) -> int:
    rearranged = iban[4:] + iban[:4]
    return int(rearranged.translate(_LETTERS_AS_NUMBERS)) % 97
