"""Values of the API as the pages write them: money, times, ids, JSON. Pure."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from sandbox.domain.clock import parse, render

FAILING: Final = "PENDING: failing"
RETRYING: Final = f"{FAILING}, retrying"
_TONES: Final = {
    **dict.fromkeys(
        ("SUCCESS", "SUCCEEDED", "ENABLED", "COMPLETED", "APPROVED", "PASSED", "passed", "succeeded", "ok", "sent"), "good"
    ),
    **dict.fromkeys(
        ("FAILED", "FAILING", "REJECTED", "REFUSED", "RETURNED", "DISABLED", "DECLINED", "failed", "INVALID"), "bad"
    ),
    **dict.fromkeys(
        (
            "ON_HOLD",
            "IN_REVIEW",
            "REQUESTED",
            "RETRY",
            "PAUSED",
            "PARTIALLY_COMPLETED",
            "CANCELLED",
            "DUPLICATE",
            "advice",
            "active",
        ),
        "warn",
    ),
    **dict.fromkeys((FAILING, RETRYING), "warn"),
}
"""Status → its colour; all others are neutral. The text says the same without colour."""


def money(amount: Any) -> str:
    """Return an amount with separators between thousands: 1,500.00. Anything else is returned as text."""
    text = f"{amount}"
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, point, rest = digits.partition(".")
    if not whole.isdigit():
        return text
    # A real minus sign is as wide as a digit.
    return f"{'−' if sign else ''}{int(whole):,}{point}{rest}"


def tone(status: Any) -> str:
    """Return how a status, also an HTTP status, is coloured: good, bad, warn or neutral."""
    if isinstance(status, bool):
        return "good" if status else "bad"
    if isinstance(status, int):
        return "good" if status < 400 else "bad"
    return _TONES.get(str(status), "neutral")


def delivery_state(delivery: Mapping[str, Any]) -> str:
    """Return a delivery's status, and in words if its attempts have failed so far. Its attempts may not be known."""
    attempts = delivery.get("attempts")
    has_failed = attempts[-1]["error_class"] is not None if attempts else delivery["attempt_count"] > 0
    if delivery["status"] != "PENDING" or not has_failed:
        return str(delivery["status"])
    return RETRYING if delivery["next_attempt_at"] else FAILING


def moment(at: Any) -> str:
    """Return a time such as 2026-11-22T10:20:30.123Z as `2026-11-22 10:20:30`."""
    return "" if at is None else str(at)[:19].replace("T", " ")


def host_time(at: Any, clock: Mapping[str, Any] | None) -> str:
    """Return a tooltip: the whole time and, if the clock allows it, the corresponding time of the host."""
    if at is None:
        return ""
    text = f"{at} (UTC) on the merchant's clock"
    if clock is None:
        return f"{at} (UTC)"
    if clock["frozen"]:
        return f"{text}, which is frozen"
    if not clock["offset_seconds"]:
        return f"{text}, which shows the host's time"
    try:
        host = render(parse(str(at)) - timedelta(seconds=clock["offset_seconds"]))
    except (ValueError, OverflowError):
        return text
    return f"{text}; {host} on the host, if the clock was not changed since"


def hue(merchant_id: str) -> int:
    """Return the number of a merchant's colour, from 0 to 7."""
    return int(merchant_id[-4:], 16) % 8 if merchant_id else 0


def short_id(value: Any) -> str:
    """Return the end of an id, which differs most between ids."""
    text = str(value)
    return f"…{text[-8:]}" if len(text) > 12 else text


def pretty(value: Any) -> str:
    """Return JSON, or a text that may be JSON, indented."""
    if isinstance(value, str):
        text = value
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
    return json.dumps(value, indent=2, ensure_ascii=False)


def compact(value: Any) -> str:
    """Return JSON on one line."""
    return json.dumps(value, ensure_ascii=False)
