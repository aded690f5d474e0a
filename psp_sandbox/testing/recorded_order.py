"""Let webhooks reach an application in the order in which they did when a test failed, as seen from the test's steps.

Whether an application handles a webhook before or after the test's next request can decide whether the test fails.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from psp_sandbox.client import PspError
from psp_sandbox.testing.compare import Comparison
from psp_sandbox.testing.recording import Arrival, Step, as_text
from psp_sandbox.testing.webhooks import Received

if TYPE_CHECKING:
    from psp_sandbox.testing.world import World

_MAX_SECONDS: Final = 10.0
"""How long a step waits for webhooks at most, or a webhook for its turn: less than the sandbox waits for its answer."""
_HORIZON: Final = timedelta(seconds=_MAX_SECONDS)
_POLL_SECONDS: Final = 0.02
_LOOK_SECONDS: Final = 0.1
"""How often a webhook or a step that waits looks whether others are still to come."""
_LIST_LIMIT: Final = 100
_END: Final = "~"
"""Later than every time."""


def outside_requests(arrivals: Sequence[Arrival], steps: Sequence[Step], answers: Sequence[str]) -> list[Arrival]:
    """Return the webhooks, with those moved out of the test's requests that only happened to come during them.

    `answers` are the times at which the sandbox answered the application's calls. A webhook that came before the first of them
    comes before the request, which did not know the answer yet. One that came after the last of them, and was still being
    handled when the request ended, comes after it. So neither races with the request again. One that the end of a process
    interrupted stays: that is no request.
    """
    found = list(arrivals)
    exact = [_moved(at, 0) for at in answers]  # the journal's times have fewer digits, and texts are compared
    for step in (one for one in steps if one.until and one.status is not None):
        own = [at for at in exact if step.at < at < step.until]
        is_late = False
        for place, one in enumerate(found):
            if one.at > step.until or "" < one.until < step.at:
                continue
            # Webhooks keep their order, so those behind a late one are late too.
            is_late = is_late or (one.at > max([step.at, *own]) and not "" < one.until < step.until)
            if one.at < min(own, default=""):
                before = _moved(step.at, -1)
                found[place] = replace(one, at=min(one.at, before), until=before)
            elif is_late:
                found[place] = replace(one, at=_moved(step.until, 1))
    return found


def _moved(moment: str, microseconds: int) -> str:
    return as_text(datetime.fromisoformat(moment) + timedelta(microseconds=microseconds))


class RecordedOrder:
    """Holds webhooks back until it is their turn. What no longer comes, or is new, is not waited for."""

    def __init__(self, world: "World", arrivals: Sequence[Arrival], comparison: Comparison) -> None:
        """`comparison` knows which recorded payout a new one stands for, as far as answers have shown it."""
        self._world = world
        self._arrivals = arrivals
        self._comparison = comparison
        self._lock = threading.Lock()
        self._places: dict[Received, int | None] = {}
        """Each webhook that has come → its place among the recorded ones, if it is one of them."""
        self._deadlines: dict[Received, float] = {}
        self._looked_at = 0.0
        self._entered: dict[int, Received] = {}
        self._missing: set[int] = set()
        """Places of webhooks that will not come, as far as is known."""
        self._now = ""
        """The time of the recording up to which the repetition has come. Webhooks that arrived later wait."""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the order in the block."""
        for received in self._world.received.all():  # while fixtures did their part
            place = self._places[received] = self._find_place(received)
            if place is not None:
                self._entered[place] = received
        self._world.received.gate = self._enter
        try:
            yield
        finally:
            self._world.received.gate = None

    def before(self, step: Step, following: Step | None, *, is_settling: bool) -> None:
        """Wait until the application has handled what it had handled before a step, and let in what arrived during the step.

        A step that `is_settling` ends only when webhooks have been answered, so it holds none back.
        """
        end = _END if is_settling else step.until or (following.at if following else _END)
        if not is_settling:
            self._now = step.at
            self._wait(lambda: self._is_as_far(step.at), _HORIZON)
            self._wait(lambda: self._is_first_here(step.at, end), timedelta())
        self._now = end

    def let_all_in(self) -> None:
        """Hold back nothing more: the steps have ended."""
        self._now = _END

    def _is_as_far(self, moment: str, end: int | None = None) -> bool:
        """Whether the webhooks, or those before a place, that had arrived at a recorded moment have arrived.

        What the application had handled by then, it must have handled.
        """
        arrived = set(self._world.received.all())  # what has only passed the gate has not
        for place, one in enumerate(self._arrivals[:end]):
            received = self._entered.get(place)
            is_handled = received in arrived and (received.answered_at is not None or not one.until or one.until > moment)
            if one.at <= moment and not is_handled and place not in self._missing:
                return False
        return True

    def _is_first_here(self, start: str, end: str) -> bool:
        """Whether the first of the webhooks that arrived between two moments waits. Others may be sent when it is answered."""
        first = next((place for place, one in enumerate(self._arrivals) if start < one.at < end), None)
        return first is None or first in self._places.values()

    def _wait(self, is_ready: Callable[[], bool], horizon: timedelta) -> None:
        deadline, next_look = time.monotonic() + _MAX_SECONDS, 0.0
        while time.monotonic() < deadline:
            with self._lock:
                if is_ready():
                    return
            # Each look is two calls, and the journal has room for so many only.
            if time.monotonic() >= next_look:
                # A webhook that waits for the step itself does not come before it.
                if self._nothing_more_comes(horizon, since=self._now):
                    return
                next_look = time.monotonic() + _LOOK_SECONDS
            time.sleep(_POLL_SECONDS)

    def _enter(self, received: Received) -> bool:
        """Return whether a webhook may reach the application: the gate."""
        with self._lock:
            if received not in self._places:
                place = self._places[received] = self._find_place(received)
                self._deadlines[received] = time.monotonic() + _MAX_SECONDS
                self._missing -= {place}
            place = self._places[received]
            is_open = place is None or self._is_next(place) or time.monotonic() > self._deadlines[received]
            if is_open and place is not None:
                self._entered[place] = received
            must_look = not is_open and time.monotonic() - self._looked_at > _LOOK_SECONDS
            if must_look:
                self._looked_at = time.monotonic()
        if must_look and self._nothing_more_comes(_HORIZON):
            with self._lock:
                first = min((place for _, place in self._waiting()), default=0)
                # Steps that are still to be repeated make those of later times.
                due = {place for place in range(first) if self._arrivals[place].at < self._now}
                self._missing |= due - self._entered.keys()
        return is_open

    def _waiting(self) -> Iterator[tuple[Received, int]]:
        for received, place in self._places.items():
            if place is not None and place not in self._entered:
                yield received, place

    def _is_next(self, place: int) -> bool:
        at = self._arrivals[place].at
        return at < self._now and self._is_as_far(at, place)

    def _find_place(self, received: Received) -> int | None:
        """Return the first free place of a webhook with the same event, of the same payout as far as that is known."""
        data = received.event.get("data", {})
        event = received.event.get("type", ""), data.get("version", 0)
        taken = set(self._places.values())
        places = (place for place, one in enumerate(self._arrivals) if (one.type, one.version) == event and place not in taken)
        return next((place for place in places if self._may_be_of(self._arrivals[place].payout_id, data.get("id"))), None)

    def _may_be_of(self, recorded: str | None, payout_id: str | None) -> bool:
        if recorded is None or payout_id is None:
            return recorded == payout_id
        known = {self._comparison.new_ids.get(recorded, payout_id), *self._payouts_at(recorded)}
        return known == {payout_id} and self._comparison.old_ids.get(payout_id, recorded) == recorded

    def _payouts_at(self, recorded: str) -> Iterator[str]:
        """Yield the payouts whose webhooks have taken places of a recorded payout."""
        for received, place in self._places.items():
            if place is not None and self._arrivals[place].payout_id == recorded:
                yield str(received.event["data"]["id"])

    def _nothing_more_comes(self, horizon: timedelta, since: str = "") -> bool:
        """Whether what is due, or will be within the horizon if the clock runs, is done or waits here since a time or later."""
        with self._lock:
            waiting = {one.headers.get("webhook-id") for one, place in self._waiting() if self._arrivals[place].at >= since}
        try:
            clock = self._world.client.clock.get()
            due = self._world.client.clock.due(limit=_LIST_LIMIT).data
        except PspError:  # the sandbox may be busy or restarting
            return False
        end = clock.now if clock.frozen else clock.now + horizon
        return all(one.due_at > end or (one.kind == "delivery_attempt" and one.event_id in waiting) for one in due)
