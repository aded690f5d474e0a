"""Arrange an endpoint's attempts over time as three small charts: success, latency and lateness. Pure."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

from sandbox.domain.clock import parse, render
from sandbox.server.console.texts import moment
from sandbox.server.console.trace import in_words

SLOTS: Final = 12
"""How many parts of equal length the time has. On a phone, each is then wide enough to be pointed at."""
HEIGHT: Final = 64
"""The height of the highest bar, in pixels."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Slot:
    """The attempts in one part of the time. `late` is the longest time from an event until it arrived."""

    place: int
    at: str
    succeeded: int
    failed: int
    milliseconds: float | None
    """Half of the attempts that got an answer took at most this. None: there was no answer."""
    late: float | None
    delivery_id: str
    """A delivery with a failed attempt, the newest one; or the newest delivery."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: its place in percent of the width, and its parts from below: height in pixels, and tone."""

    x: float
    parts: Sequence[tuple[float, str]]
    text: str
    href: str


@dataclass(frozen=True, slots=True)
class SmallChart:
    """A chart of one value over time."""

    name: str
    summary: str
    bars: Sequence[Bar]


def slots(deliveries: Sequence[Row]) -> list[Slot]:
    """Divide the attempts at deliveries into SLOTS parts of equal time, and return those that have any, oldest first."""
    attempts = [(parse(attempt["at"]), attempt, delivery) for delivery in deliveries for attempt in delivery["attempts"]]
    if not attempts:
        return []
    first, last = min(at for at, _, _ in attempts), max(at for at, _, _ in attempts)
    width = (last - first) / SLOTS or timedelta(seconds=1)
    parts: dict[int, list[tuple[datetime, Row, Row]]] = {}
    for found in attempts:
        parts.setdefault(min(SLOTS - 1, (found[0] - first) // width), []).append(found)
    return [_slot(place, render(first + place * width), parts[place]) for place in sorted(parts)]


def half_answered_within(attempts: Iterable[Row]) -> float | None:
    """Return the median time of the attempts that got an answer, in milliseconds; None if none got one."""
    answered = [attempt["duration_ms"] for attempt in attempts if attempt["status"] is not None]
    return round(median(answered), 1) if answered else None


def charts(found: Sequence[Slot]) -> list[SmallChart]:
    """Return the three charts."""
    total, good = sum(slot.succeeded + slot.failed for slot in found), sum(slot.succeeded for slot in found)
    late = max((slot.late for slot in found if slot.late is not None), default=None)
    slowest = max((slot.milliseconds for slot in found if slot.milliseconds is not None), default=None)
    return [
        SmallChart("Success", f"{good} of {total} attempts", _success(found)),
        SmallChart(
            "Latency", "no answer yet" if slowest is None else f"slowest: half of the answers within {slowest:g} ms",
            _bars(
                [slot for slot in found if slot.milliseconds is not None], lambda slot: slot.milliseconds or 0.0,
                lambda slot: f"half answered within {slot.milliseconds:g} ms",
            ),
        ),
        SmallChart(
            "Lateness", "nothing has arrived" if late is None else f"what arrived: at most {_late(late)} after the event",
            _bars(
                [slot for slot in found if slot.late is not None], lambda slot: math.log10(2 + (slot.late or 0)),
                lambda slot: f"arrived at most {_late(slot.late or 0)} after the event",
            ),
        ),
    ]  # fmt: skip


def _slot(place: int, at: str, attempts: Sequence[tuple[datetime, Row, Row]]) -> Slot:
    good = [item for item in attempts if not item[1]["error_class"]]
    delays = [(at - parse(row["created_at"])).total_seconds() for at, attempt, row in good if not attempt["manual"]]
    failed = [item for item in attempts if item[1]["error_class"]]
    return Slot(
        place=place,
        at=at,
        succeeded=len(good),
        failed=len(failed),
        milliseconds=half_answered_within(attempt for _, attempt, _ in attempts),
        late=max(delays, default=None),
        delivery_id=max(failed or attempts, key=lambda item: item[0])[2]["id"],
    )


def _late(seconds: float) -> str:
    return "a second" if seconds < 1 else in_words(seconds)


def _success(found: Sequence[Slot]) -> list[Bar]:
    most = max((slot.succeeded + slot.failed for slot in found), default=1)
    return [
        _bar(
            slot,
            [(HEIGHT * slot.succeeded / most, "good"), (HEIGHT * slot.failed / most, "bad")],
            f"{slot.succeeded} succeeded, {slot.failed} failed",
        )
        for slot in found
    ]


def _bars(found: Sequence[Slot], value: Callable[[Slot], float], say: Callable[[Slot], str]) -> list[Bar]:
    most = max((value(slot) for slot in found), default=1.0) or 1.0
    return [_bar(slot, [(max(2.0, HEIGHT * value(slot) / most), "neutral")], say(slot)) for slot in found]


def _bar(slot: Slot, parts: Sequence[tuple[float, str]], said: str) -> Bar:
    heights = [(round(height, 1), tone) for height, tone in parts if height > 0]
    text = f"From {moment(slot.at)}: {said}"
    return Bar(round(100 * slot.place / SLOTS, 2), heights, text, f"/webhooks/deliveries/{slot.delivery_id}")
