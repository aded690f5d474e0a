"""Amounts of money: whole paisa (minor units) inside the shop, text with two decimals outside."""

from decimal import Decimal, InvalidOperation


def to_minor(text: object) -> int:
    """Return an amount such as "12.50" in paisa. Raises ValueError if it is not text, or not positive, or has more decimals."""
    if not isinstance(text, str):
        raise ValueError("an amount must be text, because a JSON number loses digits")
    try:
        minor = Decimal(text) * 100
    except InvalidOperation:
        raise ValueError(f"not an amount: {text!r}") from None
    if not minor.is_finite() or minor != minor.to_integral_value() or minor <= 0:
        raise ValueError(f"not an amount: {text!r}")
    return int(minor)


def to_text(minor: int) -> str:
    """Return an amount in paisa as text with two decimals."""
    return f"{Decimal(minor) / 100:.2f}"
