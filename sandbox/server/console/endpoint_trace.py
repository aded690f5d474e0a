"""Arrange an endpoint's last deliveries as a drawing, and measure its success and speed. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.domain.clock import parse
from sandbox.server.console.endpoint_charts import half_answered_within
from sandbox.server.console.payout_trace import attempt_mark
from sandbox.server.console.texts import FAILING, RETRYING, delivery_state, moment, tone
from sandbox.server.console.trace import Lane, Mark, Trace, draw, in_words

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Health:
    """How an endpoint's last deliveries went. None: nothing to measure."""

    attempts: int
    succeeded: int
    milliseconds: float | None
    """Half of the attempts that got an answer took at most this."""
    unanswered: int
    """How many attempts got no answer."""
    wait: str | None
    """The longest time from an event until it arrived, or until now."""
    missing: int
    """How many deliveries have not arrived."""
    last_failure: Row | None
    """The delivery with the newest failed attempt."""


def endpoint_trace(deliveries: Sequence[Row], now: str) -> Trace:
    """Return the drawing of deliveries, newest first, with their attempts: a lane for each."""
    lanes, marks = [], []
    for delivery in deliveries:
        key, href = delivery["id"], f"/webhooks/deliveries/{delivery['id']}"
        count = delivery["attempt_count"]
        state = delivery_state(delivery)
        words = "failing" if state in (FAILING, RETRYING) else state
        summary = f"{words}, {count} {'attempt' if count == 1 else 'attempts'}"
        is_failing = delivery["status"] != "SUCCEEDED" and count > 0
        found = "bad" if is_failing else tone(delivery["status"])
        lanes.append(Lane(key, delivery["event_type"], "attempts", summary, found, href, delivery["event_type"]))
        marks += [attempt_mark(key, delivery, attempt) for attempt in delivery["attempts"]]
        if delivery["next_attempt_at"]:
            at = delivery["next_attempt_at"]
            marks.append(
                Mark(key, at, f"Due: attempt {count + 1} of {delivery['event_type']}, {moment(at)}", href, is_due=True)
            )
    return draw(lanes, marks, [], now)


def health(deliveries: Sequence[Row], now: str) -> Health:
    """Measure deliveries with their attempts. What has not arrived counts too, or an endpoint that is down would look well."""
    attempts = [(attempt["at"], attempt, delivery) for delivery in deliveries for attempt in delivery["attempts"]]
    good = [item for item in attempts if not item[1]["error_class"]]
    failed = [item for item in attempts if item[1]["error_class"]]
    missing = [delivery for delivery in deliveries if delivery["status"] != "SUCCEEDED"]
    arrivals = [(at, delivery) for at, attempt, delivery in good if not attempt["manual"]]
    waits = [
        (parse(at) - parse(delivery["created_at"])).total_seconds()
        for at, delivery in [*arrivals, *((now, delivery) for delivery in missing)]
    ]
    return Health(
        attempts=len(attempts),
        succeeded=len(good),
        milliseconds=half_answered_within(attempt for _, attempt, _ in attempts),
        unanswered=sum(attempt["status"] is None for _, attempt, _ in attempts),
        wait=("less than a second" if max(waits) < 1 else in_words(max(waits))) if waits else None,
        missing=len(missing),
        last_failure=max(failed, key=lambda item: item[0])[2] if failed else None,
    )
