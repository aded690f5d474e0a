"""Amounts of money: exact decimals with two places, never binary floats. Pure."""

import re
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Final

CURRENCY: Final = "PKR"
MAX_AMOUNT: Final = Decimal("999999999999.99")
ZERO: Final = Decimal("0.00")
PAISA: Final = Decimal("0.01")

# \Z and not $: `$` also matches before a final newline.
_TEXT: Final = re.compile(rb"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,2})?\Z")
_RULE: Final = (
    "must be a decimal string or a JSON number, more than 0, at most 999999999999.99, with at most two decimal places"
)
_RULE_WITH_ZERO: Final = _RULE.replace("more than 0", "0 or more")

_SIGNED_RULE: Final = (
    "must be a decimal string or a JSON number, not 0, from -999999999999.99 to 999999999999.99, "
    "with at most two decimal places"
)


class InvalidAmountError(ValueError):
    """The value is not a valid amount. The message describes a valid one."""


def parse_amount(raw: bytes, *, zero: bool = False) -> Decimal:
    """Parse an amount's raw JSON, a string or a number, into a Decimal with two places. `zero` allows 0.

    Raises InvalidAmountError unless the amount is > 0, ≤ 999999999999.99 and has at most two decimal places.
    """
    rule = _RULE_WITH_ZERO if zero else _RULE
    if len(raw) > 40:
        raise InvalidAmountError(rule)
    if raw[:1] == b'"':
        text = raw[1:-1]
        if not _TEXT.match(text):
            raise InvalidAmountError(rule)
    else:
        text = raw
    try:
        value = Decimal(text.decode("ascii"))
        # A JSON number may be written as 1.5e3; only its exact value matters.
        exact = value.quantize(PAISA)
    except (InvalidOperation, UnicodeDecodeError, ValueError):
        raise InvalidAmountError(rule) from None
    if zero and value == 0:
        return ZERO
    if exact != value or not ZERO < exact <= MAX_AMOUNT:
        raise InvalidAmountError(rule)
    return exact


def parse_signed_amount(raw: bytes) -> Decimal:
    """Parse the raw JSON of an amount that may be negative into a Decimal with two places.

    Raises InvalidAmountError for 0, and if `parse_amount` would refuse the absolute value.
    """
    try:
        if raw[:1] == b"-":
            return -parse_amount(raw[1:])
        if raw[:2] == b'"-':
            return -parse_amount(b'"' + raw[2:])
        return parse_amount(raw)
    except InvalidAmountError:
        raise InvalidAmountError(_SIGNED_RULE) from None


def round_half_up(value: Decimal) -> Decimal:
    """Round to the paisa (0.01), halves away from zero."""
    return value.quantize(PAISA, rounding=ROUND_HALF_UP)
