"""What an exploration found, and its JSON. Everything that reports an exploration reads these types."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

FORMAT: Final = "psp.exploration"
VERSION: Final = 1


class At(StrEnum):
    """Where a point is: the part of the exchange that misbehaves."""

    WRITE = "write"
    READ = "read"
    EVENT = "event"
    STATUS = "status"
    APPLICATION = "application"
    REST = "rest"
    """Nothing misbehaves: the test runs as it is, and then time passes."""


class Kind(StrEnum):
    """What happens at a point. The value is part of a point's name."""

    REQUEST_LOST = "request_lost"
    ANSWER_LOST = "answer_lost"
    ANSWER_AFTER_WEBHOOKS = "answer_after_webhooks"
    HALF_ANSWER = "half_answer"
    GATEWAY_ERROR = "gateway_error"
    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate_limited"
    KEY_EXPIRED = "key_expired"
    TWICE = "twice"
    LATE = "late"
    OUT_OF_ORDER = "out_of_order"
    ONLY_RECOVERED = "only_recovered"
    FORGED = "forged"
    REINITIATED_TWICE = "reinitiated_twice"
    CANCELLED = "cancelled"
    RETURNED = "returned"
    TIME_PASSES = "time_passes"
    KILLED_AT_CALL = "killed_at_call"
    KILLED_BEFORE_ANSWER = "killed_before_answer"
    KILLED_AFTER_ANSWER = "killed_after_answer"


class Verdict(StrEnum):
    """How a point ended."""

    RIGHT = "right"
    """The test passed, and the books agree."""
    REFUSED = "refused"
    """The test failed, but the books agree."""
    WRONG = "wrong"
    """The books differ: a finding."""
    UNSETTLED = "unsettled"
    """Something still moves, or is not acknowledged, after everything had time to settle."""
    NOT_REACHED = "not_reached"
    """The test did not come to the point, or the application could not be restarted there."""


class Cause(StrEnum):
    """The likely cause of a finding."""

    NEW_KEY = "new_key_after_unknown_outcome"
    NEW_REFERENCE = "new_reference"
    APPLIED_TWICE = "event_applied_twice"
    OLDER_OVER_NEWER = "older_event_over_newer"
    FORGED_ACCEPTED = "forged_event_accepted"
    ANSWER_OVER_WEBHOOK = "answer_trusted_over_webhook"
    EVENT_LOST = "event_lost"
    NO_RETRY = "no_retry"
    GAVE_UP_ON_PAID = "unknown_outcome_treated_as_failure"
    LATER_CHANGE_IGNORED = "later_change_ignored"
    MONEY_AND_STATUS_APART = "money_and_status_apart"
    NOT_ACKNOWLEDGED = "event_never_acknowledged"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Difference:
    """A reference on which the two books differ. A side that does not have it has None. Amounts are text with two decimals."""

    reference: str
    books_status: str | None
    books_amount: str | None
    psp_status: str | None
    psp_amount: str | None
    overpaid: str
    """How much more the provider paid than the application believes; negative if it paid less."""
    books_spent: str | None = None
    """What has left the application's books for it: its amount, or nothing after it failed or came back."""
    psp_spent: str | None = None
    """What is paid or on its way for it at the provider."""


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One thing that happened."""

    at: str
    """The merchant's time, RFC 3339 in UTC."""
    side: str
    """`application` for what the application did or answered, `provider` for what the provider did."""
    text: str


@dataclass(frozen=True, slots=True)
class PointResult:
    """A point that was tried, and its verdict."""

    test: str
    """The test's node id, or the command without one."""
    at: At
    place: str
    """Where it is within the test, such as `POST /payouts#2` or `payout.failed#1`."""
    kind: Kind
    verdict: Verdict
    reason: str | None = None
    """Why the verdict is not `right`, in one sentence."""
    cause: Cause | None = None
    """The likely cause, if the verdict is `wrong` or `unsettled`."""
    cure: str | None = None
    differences: tuple[Difference, ...] = ()
    timeline: tuple[TimelineRow, ...] = ()
    repeat: str = ""
    """The command line that repeats exactly this point."""
    bundle: str | None = None
    """The file of the world bundle, relative to the folder of the run."""
    seconds: float = 0.0
    with_points: tuple[str, ...] = ()
    """The other points, `place:kind`, that were active in the same run."""

    @property
    def name(self) -> str:
        """The point's name within its test: `POST /payouts#2:answer_lost`; a pair is joined by ` + `."""
        return " + ".join([f"{self.place}:{self.kind}", *self.with_points])

    @property
    def overpaid(self) -> Decimal:
        """The money that was paid beyond what the application believes. Never negative."""
        return sum((max(Decimal(one.overpaid), Decimal(0)) for one in self.differences), Decimal(0))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A test that was not explored, and why."""

    test: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotTried:
    """A kind of point that was not tried, and why."""

    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Exploration:
    """The results of one exploration."""

    command: str
    seed: int
    started_at: str
    """Host time, RFC 3339 in UTC."""
    virtual_hours: float
    """The merchant's time that passed after each run, for everything to settle."""
    points: tuple[PointResult, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    not_tried: tuple[NotTried, ...] = ()
    has_books: bool = True
    """Whether the application's books were compared. Without them, only the provider's side was judged."""
    planned: int = 0
    """How many points there are, including those for which there was no time."""
    currency: str = "PKR"
    format: str = field(default=FORMAT, init=False)
    version: int = field(default=VERSION, init=False)

    @property
    def findings(self) -> tuple[PointResult, ...]:
        """The points whose verdict is `wrong`, in order."""
        return tuple(point for point in self.points if point.verdict is Verdict.WRONG)

    @property
    def counts(self) -> Mapping[Verdict, int]:
        """The number of points of each verdict."""
        found = Counter(point.verdict for point in self.points)
        return {verdict: found[verdict] for verdict in Verdict}

    @property
    def is_complete(self) -> bool:
        """Whether every planned point was tried."""
        return len(self.points) >= self.planned

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong or unsettled."""
        return not self.counts[Verdict.WRONG] and not self.counts[Verdict.UNSETTLED]

    def to_json(self) -> str:
        """Return the results as JSON, with two spaces of indentation, that `from_json` reads."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Exploration":
        """Return the results from the text of `to_json`. Raises ValueError if it is something else."""
        stored = json.loads(text)
        if not isinstance(stored, dict) or (stored.pop("format", None), stored.pop("version", None)) != (FORMAT, VERSION):
            raise ValueError(f"This is not the JSON of an exploration ({FORMAT}, version {VERSION}).")
        parts: dict[str, Any] = {
            "points": tuple(point_from_json(point) for point in stored.pop("points")),
            "left_out": tuple(LeftOut(**one) for one in stored.pop("left_out")),
            "not_tried": tuple(NotTried(Kind(one["kind"]), one["reason"]) for one in stored.pop("not_tried")),
        }
        return cls(**stored, **parts)


def point_to_json(point: PointResult) -> dict[str, Any]:
    """Return one point as JSON."""
    return asdict(point)


def point_from_json(stored: Mapping[str, Any]) -> PointResult:
    """Return a point from the JSON of `point_to_json`."""
    return PointResult(**{**stored, **dict(_typed(stored))})


def _typed(stored: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "at", At(stored["at"])
    yield "kind", Kind(stored["kind"])
    yield "verdict", Verdict(stored["verdict"])
    yield "cause", None if stored["cause"] is None else Cause(stored["cause"])
    yield "differences", tuple(Difference(**one) for one in stored["differences"])
    yield "timeline", tuple(TimelineRow(**one) for one in stored["timeline"])
    yield "with_points", tuple(stored["with_points"])
