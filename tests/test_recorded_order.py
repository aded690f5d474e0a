"""When a failed test is repeated, webhooks reach the application when they did then, as seen from the test's requests."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

import pytest

from psp_sandbox.testing import recorded_order
from psp_sandbox.testing.compare import Comparison
from psp_sandbox.testing.recorded_order import RecordedOrder, outside_requests
from psp_sandbox.testing.recording import Arrival, Step, as_text
from psp_sandbox.testing.webhooks import Inbox, Received
from tests.harness.waiting import until

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
EARLY: Final = Step(at="1", method="GET", until="2")
LATE: Final = Step(at="7", method="GET", until="8")


def arrival(version: int, at: str, handled: str) -> Arrival:
    """Return a recorded webhook."""
    return Arrival(at=at, type="payout.processing", payout_id="then", version=version, status=200, until=handled)


class Repetition:
    """A world without a sandbox, whose webhooks the test brings itself."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.due: list[int] = []
        """Versions of the payout whose webhooks are due."""

    @contextmanager
    def kept(self, arrivals: Sequence[Arrival]) -> Iterator[RecordedOrder]:
        """Keep the order of the recorded webhooks in the block."""
        clock = SimpleNamespace(
            get=lambda: SimpleNamespace(now=NOW, frozen=True), due=lambda limit: SimpleNamespace(data=self._due())
        )
        world: Any = SimpleNamespace(received=self.inbox, client=SimpleNamespace(clock=clock))
        order = RecordedOrder(world, arrivals, Comparison(exact=False))
        with order.kept():
            yield order

    def _due(self) -> list[Any]:
        return [SimpleNamespace(kind="delivery_attempt", due_at=NOW, event_id=str(version)) for version in self.due]

    def come(self, version: int) -> Received:
        """Return a webhook that is at the gate."""
        data = {"id": "now", "version": version}
        event = {"id": str(version), "type": "payout.processing", "timestamp": NOW.isoformat(), "data": data}
        return self.inbox.read(None, [("webhook-id", str(version))], json.dumps(event).encode())

    def may_pass(self, received: Received) -> bool:
        """Return whether a webhook at the gate may reach the application."""
        assert self.inbox.gate is not None
        return self.inbox.gate(received)

    def handle(self, received: Received) -> None:
        """Let the application handle a webhook."""
        self.inbox.answered(self.inbox.record(received), 200)


def test_a_webhook_that_came_after_a_request_waits_for_it_and_the_next_request_waits_for_the_webhook() -> None:
    repetition = Repetition()
    with repetition.kept([arrival(1, "3", "4")]) as order:
        order.before(EARLY, LATE, is_settling=False)
        received, repetition.due = repetition.come(1), [1]
        assert not repetition.may_pass(received)
        late = threading.Thread(target=order.before, args=(LATE, None), kwargs={"is_settling": False})
        late.start()
        until(lambda: repetition.may_pass(received))
        assert late.is_alive()
        repetition.handle(received)
        late.join(30)
        assert not late.is_alive()


def test_a_webhook_that_came_during_a_request_does_not_wait_for_its_answer() -> None:
    repetition = Repetition()
    with repetition.kept([arrival(1, "7.5", "9")]) as order:
        received, repetition.due = repetition.come(1), [1]
        assert not repetition.may_pass(received)
        order.before(LATE, None, is_settling=False)
        assert repetition.may_pass(received)


def test_what_only_happened_to_come_during_a_request_comes_before_or_after_it() -> None:
    def at(second: int) -> str:
        return as_text(NOW.replace(second=second))

    def moved(*handled: tuple[int, int], answers: Sequence[int] = (5, 13, 16, 25)) -> list[tuple[str, str]]:
        request = Step(at=at(10), method="POST", status=200, until=at(20))
        arrivals = [arrival(version, at(began), at(ended)) for version, (began, ended) in enumerate(handled)]
        return [(one.at, one.until) for one in outside_requests(arrivals, [request], list(map(at, answers)))]

    # The application's calls are answered at 13 and 16.
    early = as_text(NOW.replace(second=10) - timedelta(microseconds=1))
    late = as_text(NOW.replace(second=20) + timedelta(microseconds=1))
    assert moved((11, 14)) == [(early, early)], "it came before an answer was known"
    assert moved((8, 12)) == [(at(8), early)]
    assert moved((17, 21)) == [(late, at(21))], "it was handled when the test had its answer"
    assert moved((11, 21), answers=()) == [(late, at(21))]
    assert moved((14, 21)) == [(at(14), at(21))]
    assert moved((17, 18)) == [(at(17), at(18))], "the request may have waited for it"
    assert moved((17, 21), (18, 19)) == [(late, at(21)), (late, at(19))], "webhooks do not overtake each other"
    assert moved((7, 8), (22, 23)) == [(at(7), at(8)), (at(22), at(23))]


def test_an_answer_counts_at_its_time_also_if_that_has_only_milliseconds() -> None:
    second = "2030-01-01T00:00:17"
    request = Step(at=f"{second}.122000Z", method="POST", status=200, until=f"{second}.125000Z")
    came = arrival(1, f"{second}.123950Z", f"{second}.126000Z")
    (late,) = outside_requests([came], [request], [f"{second}.123Z"])
    assert late.at == f"{second}.125001Z", "it came after the answer"


def test_a_webhook_that_a_restart_interrupted_is_interrupted_again() -> None:
    restart = Step(at=as_text(NOW), method="restart", until=as_text(NOW.replace(second=9)))
    interrupted = [arrival(1, as_text(NOW - timedelta(seconds=1)), ""), arrival(2, as_text(NOW.replace(second=1)), "")]
    assert outside_requests(interrupted, [restart], [as_text(NOW.replace(second=2))]) == interrupted


def test_what_a_later_step_makes_is_still_to_come() -> None:
    repetition = Repetition()
    with repetition.kept([arrival(1, "3", "4"), arrival(2, "90", "91"), arrival(3, "95", "96")]) as order:
        order.before(EARLY, LATE, is_settling=False)
        third, repetition.due = repetition.come(3), [3]
        assert not repetition.may_pass(third)
        order.let_all_in()
        second, repetition.due = repetition.come(2), [2, 3]
        assert not repetition.may_pass(third)
        until(lambda: repetition.may_pass(second))
        assert not repetition.may_pass(third)
        repetition.handle(second)
        assert repetition.may_pass(third)


def test_what_comes_after_it_was_thought_missing_keeps_its_place() -> None:
    repetition = Repetition()
    with repetition.kept([arrival(1, "3", "4"), arrival(2, "5", "6")]) as order:
        order.let_all_in()
        second, repetition.due = repetition.come(2), [2]
        assert not repetition.may_pass(second)
        first, repetition.due = repetition.come(1), [1, 2]
        assert repetition.may_pass(first)
        assert not repetition.may_pass(second)
        repetition.handle(first)
        assert repetition.may_pass(second)


def test_webhooks_come_in_the_recorded_order() -> None:
    repetition = Repetition()
    with repetition.kept([arrival(2, "3", "4"), arrival(1, "5", "6"), arrival(3, "5.5", "5.6")]) as order:
        order.let_all_in()
        repetition.due = [1, 2, 3]
        first, second, third = (repetition.come(version) for version in (1, 2, 3))
        assert [repetition.may_pass(one) for one in (first, third)] == [False, False]
        assert repetition.may_pass(second)
        assert not repetition.may_pass(first)
        repetition.handle(second)
        assert [repetition.may_pass(one) for one in (third, first, third)] == [False, True, False]
        repetition.inbox.record(first)
        assert repetition.may_pass(third)


def test_what_came_before_the_order_was_kept_keeps_its_place() -> None:
    repetition = Repetition()
    repetition.handle(repetition.come(1))
    with repetition.kept([arrival(1, "3", "4"), arrival(1, "5", "6")]) as order:
        order.before(Step(at="4.5", method="GET", until="4.6"), None, is_settling=False)
        again, repetition.due = repetition.come(1), [1]
        assert not repetition.may_pass(again)
        order.let_all_in()
        assert repetition.may_pass(again)


def test_what_no_longer_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    repetition = Repetition()
    with repetition.kept([arrival(1, "3", "4"), arrival(2, "5", "6")]) as order:
        repetition.due = [2]
        received = repetition.come(2)
        with monkeypatch.context() as patched:
            patched.setattr(recorded_order, "_MAX_SECONDS", 1.0)
            order.before(LATE, None, is_settling=False)
        until(lambda: repetition.may_pass(received))


def test_a_webhook_that_is_new_does_not_wait() -> None:
    repetition = Repetition()
    with repetition.kept([arrival(1, "3", "4")]):
        assert repetition.may_pass(repetition.come(9))


def test_a_call_that_waits_for_webhooks_holds_none_back() -> None:
    repetition = Repetition()
    with repetition.kept([arrival(1, "9", "9.1")]) as order:
        order.before(EARLY, LATE, is_settling=True)
        assert repetition.may_pass(repetition.come(1))
