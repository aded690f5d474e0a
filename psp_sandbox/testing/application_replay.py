"""Do to an application again what a failed test did to it, and compare its calls and answers with the recorded ones.

The test's own calls and its requests to the application are made again, in order, in a world with the same seed and clock: so
the sandbox sends the application the same webhooks, and has the same faults. The webhooks reach it in the recorded order.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.testing.compare import REDACTED, Comparison, parse
from psp_sandbox.testing.fresh_world import CannotReplayError
from psp_sandbox.testing.live_process import LiveProcess
from psp_sandbox.testing.recorded_order import RecordedOrder, outside_requests
from psp_sandbox.testing.recording import CALL, Arrival, Recorded, Step, arrivals_of, read_beside
from psp_sandbox.testing.replay import REPEATED_HEADERS, read_bundle, why_not
from psp_sandbox.testing.sandbox import USER_AGENT

if TYPE_CHECKING:
    from psp_sandbox.testing.world import World

Call = Mapping[str, Any]
_READS: Final = ("GET", "HEAD")
_EXPORT: Final = "/sandbox/v1/world"
_SETTLING: Final = ("/sandbox/v1/drain", "/sandbox/v1/clock/advance", "/sandbox/v1/clock/freeze")
"""Paths of calls that return only when webhooks have been answered."""
_SECONDS: Final = 2.0
"""How long the application may take to do again what it did: it can act in the background."""
_POLL_SECONDS: Final = 0.05
_MAX_ROWS: Final = 200
_MAX_LINE: Final = 200


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a timeline: who did what."""

    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the application did this time, compared with the failure."""

    differences: Sequence[str]
    """Where its calls and answers are no longer those of the failed test."""
    failures: Sequence[str]
    """What is wrong regardless of the recording: deliveries that failed, and answers that are errors."""
    timeline: Sequence[Row]
    failure: str
    """How the recorded test failed."""

    @property
    def is_the_same(self) -> bool:
        """Whether the application still does what it did when the test failed."""
        return not self.differences

    def assert_changed(self) -> None:
        """Raise AssertionError, with the timeline, if the application behaves as before, or if it fails in another way."""
        __tracebackhide__ = True
        if self.is_the_same:
            raise AssertionError(f"The application still does what it did when the test failed.\n{self}")
        if self.failures:
            raise AssertionError(
                "\n".join(["The application behaves differently now, but it still fails:", *self.failures, str(self)])
            )

    def __str__(self) -> str:
        changed = [f"Changed since: {one}" for one in self.differences]
        then = [f"It failed with:\n{self.failure}"] if self.failure else []
        return "\n".join([*then, *changed, "What happened this time:", *_shown(self.timeline)])


def replay_application(world: "World", bundle: "str | os.PathLike[str]") -> Replayed:
    """Repeat a failed test against the application that runs in `world`, the fixture `psp`.

    `bundle` is the file of the failed test's world, next to which the plugin has saved what the test did with its application.
    What has been done in this world already, by fixtures, is not repeated. Raises CannotReplayError, OSError.
    """
    path = Path(bundle)
    calls = read_bundle(path)["journal"]["calls"]
    try:
        recorded = read_beside(path)
    except ValueError as error:
        raise CannotReplayError(str(error)) from error
    if recorded is None:
        raise CannotReplayError(f"There is no file next to {path} that records what the test did with its application.")
    if world.app is None:
        raise CannotReplayError(
            "No application is running: start it with live_app, live_process, or a fixture that uses one of them."
        )
    return _Repetition(world, calls, recorded).run()


class _Repetition:
    def __init__(self, world: "World", calls: Sequence[Call], recorded: Recorded) -> None:
        self._world = world
        self._calls = calls
        self._recorded = recorded
        self._comparison = Comparison(exact=False)

    def run(self) -> Replayed:
        """Do everything again."""
        own = self._world.recording.steps
        done = _to_repeat(own, self._export() if any(one.method == CALL for one in own) else [])
        remaining = _to_repeat(self._recorded.steps, self._calls)[len(done) :]
        answers = [call["at"] for call in self._calls if not _is_own(call)]
        arrivals = outside_requests(self._recorded.arrivals, self._recorded.steps, answers)
        order = RecordedOrder(self._world, arrivals, self._comparison)
        with order.kept():
            for number, (step, call) in enumerate(remaining, 1):
                following = remaining[number][0] if number < len(remaining) else None
                order.before(step, following, is_settling=call is not None and call["path"] in _SETTLING)
                if call is None:
                    self._step(step)
                else:
                    self._call(call)
            order.let_all_in()
            return self._compare()

    def _step(self, step: Step) -> None:
        app = self._world.app
        assert app is not None, "checked by replay_application"
        if step.status is not None:
            headers = {"content-type": step.content_type} if step.content_type else {}
            body = self._comparison.translate(step.body)
            answer = app.client.request(step.method, self._comparison.translate(step.path), content=body, headers=headers)
            self._learn(step.answer, answer.text)
        elif isinstance(app, LiveProcess):
            {"kill": app.kill, "restart": app.restart, "stop": app.stop}[step.method]()

    def _call(self, call: Call) -> None:
        caller = self._world.client._caller
        headers = {name: call["request_headers"][name] for name in REPEATED_HEADERS if name in call["request_headers"]}
        headers |= {"X-API-KEY": self._world.api_key, "X-IDEMPOTENCY-KEY": call["idempotency_key"] or ""}
        path = self._comparison.translate(call["path"]) + (f"?{call['query']}" if call["query"] else "")
        body = self._comparison.translate(call["request_body"]).encode()
        answer = caller.pool.http().request(
            call["method"], caller.address.url + path, content=body, headers=headers, timeout=caller.address.timeout
        )
        self._learn(call["response_body"], answer.text)

    def _learn(self, before: str, now: str) -> None:
        """Learn which new id stands for which recorded one."""
        try:
            self._comparison.differences(parse(before)[0], parse(now)[0])
        except ValueError:
            return  # it is not JSON

    def _export(self) -> list[Call]:
        found: list[Call] = self._world.request("GET", _EXPORT).json()["journal"]["calls"]
        return found

    def _compare(self) -> Replayed:
        deadline = time.monotonic() + _SECONDS
        while True:
            self._world.drain()
            calls, steps, arrivals = self._export(), self._world.recording.steps, arrivals_of(self._world.received)
            found = list(self._differences(calls, steps, arrivals))
            # A wrong call shows up immediately, or when the application's background work has come as far as it had. Only
            # what is missing can still come.
            if not found or any(one.is_final for one in found) or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        rows = sorted([*_rows_of_calls(calls), *_rows_of_steps(steps), *_rows_of(arrivals)], key=lambda row: row.at)
        differences = [one.text for one in found]
        return Replayed(differences, list(self._failures(steps, arrivals)), rows, self._recorded.failure)

    def _differences(
        self, calls: Sequence[Call], steps: Sequence[Step], arrivals: Sequence[Arrival]
    ) -> Iterator["_Difference"]:
        yield from self._pairs("call", _of_application(self._calls), _of_application(calls))
        yield from self._pairs("request", _exchanges(self._recorded.steps), _exchanges(steps))
        # When the test failed, webhooks were still on their way or being answered.
        recorded = self._recorded.arrivals
        last = max((number for number, one in enumerate(recorded, 1) if one.status is not None), default=0)
        pairs = zip(recorded[:last], arrivals, strict=False)
        now = [_arrival(other, is_answered=one.status is not None) for one, other in pairs]
        yield from self._pairs("webhook", [_arrival(one) for one in recorded[:last]], now)

    def _pairs(self, what: str, before: list["_Compared"], now: list["_Compared"]) -> Iterator["_Difference"]:
        for number, (one, other) in enumerate(zip_longest(before, now), 1):
            if one is None or other is None:
                text = f"{one[0]}, did not happen this time" if one else f"{other[0]}, did not happen before"
                yield _Difference(f"{what} {number}, {text}", is_final=one is None)
                return
            # A call is listed when it has ended, before others that began later; the last answer of a repeated read changes.
            is_final = what != "call" or (one[0] == other[0] and not one[0].startswith(_READS))
            if one[0] != other[0]:
                yield _Difference(f"{what} {number} was {one[0]}, and is {other[0]}", is_final)
                return
            yield from (
                _Difference(f"{what} {number}, {one[0]}: {part}", is_final)
                for part in self._comparison.differences(*map(list, (one[1:], other[1:])))
            )

    def _failures(self, steps: Sequence[Step], arrivals: Sequence[Arrival]) -> Iterator[str]:
        last = {(one.type, one.payout_id, one.version): one for one in arrivals if one.type}
        for arrival in last.values():
            if (arrival.status or 500) >= 300 and not self._recorded.options.get("allow_failed_deliveries"):
                yield f"{arrival.type} (version {arrival.version}) was last answered with {arrival.status}"
        for one in steps:
            if (one.status or 0) >= 500 and not any(one.status == before.status for before in self._recorded.steps):
                yield f"{one.method} {one.path} is answered with {one.status}: {one.answer[:_MAX_LINE]}"


@dataclass(frozen=True, slots=True)
class _Difference:
    text: str
    is_final: bool
    """Whether it remains, whatever the application still does."""


_Compared = tuple[str, Any, Any]
"""What it is, and what is compared: what was sent, and what was answered."""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _is_own(call: Call) -> bool:
    return bool(call["request_headers"].get("user-agent") == USER_AGENT)


def _to_repeat(steps: Sequence[Step], calls: Sequence[Call]) -> list[tuple[Step, Call | None]]:
    """Return the steps that can be repeated, each with its recorded call if it is a call of the sandbox."""
    by_key = {call["idempotency_key"]: call for call in calls if call["idempotency_key"]}
    pairs = ((step, by_key.get(step.path) if step.method == CALL else None) for step in steps)
    return [(step, call) for step, call in pairs if step.method != CALL or (call is not None and why_not(call) is None)]


def _of_application(calls: Sequence[Call]) -> list[_Compared]:
    """Return the application's calls. A read that is repeated until its answer changes is one call."""
    found = [one for one in calls if not _is_own(one) and one["path"].startswith("/api/")]
    shown: list[_Compared] = []
    for (method, _), group in groupby(found, lambda one: (one["method"], one["path"])):
        some = list(group)
        shown += map(_sent, some[-1:] if method in _READS else some)
    return shown


def _sent(call: Call) -> _Compared:
    fault = call["fault"]["kind"] if call["fault"] else None
    body = _json(call["request_body"])
    if isinstance(body, dict):
        body.pop("metadata", None)  # it often has the time of the call
    return f"{call['method']} {_kind(call['path'])}", body, [call["status"], fault, call["replayed"]]


def _exchanges(steps: Sequence[Step]) -> list[_Compared]:
    return [_exchange(one) for one in steps if one.method != CALL]


def _exchange(step: Step) -> _Compared:
    name = f"{step.method} {_kind(step.path)}".strip()
    return name, _json(step.body), [step.status, _json(step.answer)]


def _arrival(one: Arrival, *, is_answered: bool = True) -> _Compared:
    return f"{one.type or 'invalid'} (version {one.version})", None, [one.status if is_answered else None]


def _kind(path: str) -> str:
    """Return a path with `{id}` in place of its ids, which may differ."""
    return "/".join("{id}" if len(part) == 36 and part.count("-") == 4 else part for part in path.partition("?")[0].split("/"))


def _json(text: str) -> Any:
    try:
        return parse(text)[0]
    except ValueError:
        return None if text == REDACTED else text


def _rows_of_calls(calls: Sequence[Call]) -> Iterator[Row]:
    for one in calls:
        if not one["path"].startswith("/") or (_is_own(one) and one["method"] in _READS):
            continue
        who = "test" if _is_own(one) else "application"
        fault = f", fault {one['fault']['kind']}" if one["fault"] else ""
        code = f" {_code(one['response_body'])}" if one["status"] >= 400 else ""
        body = f" {one['request_body']}" if one["request_body"] else ""
        yield Row(_time(one["at"]), f"{who} → sandbox: {one['method']} {one['path']}{body} → {one['status']}{code}{fault}")


def _code(body: str) -> str:
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def _rows_of_steps(steps: Sequence[Step]) -> Iterator[Row]:
    for one in (step for step in steps if step.method != CALL):
        answer = f" {one.body} → {one.status} {one.answer}" if one.status is not None else ""
        yield Row(_time(one.at), f"test → application: {one.method} {one.path}{answer}")


def _rows_of(arrivals: Sequence[Arrival]) -> Iterator[Row]:
    for one in arrivals:
        what = f"{one.type} (version {one.version})" if one.type else "something that is not a webhook"
        yield Row(_time(one.at), f"sandbox → application: {what} → {one.status} {one.answer}".rstrip())


def _shown(rows: Sequence[Row]) -> Iterator[str]:
    if len(rows) > _MAX_ROWS:
        yield f"(only the last {_MAX_ROWS} of {len(rows)} rows)"
    for row in rows[-_MAX_ROWS:]:
        text = " ".join(row.text.split())
        yield f"  {row.at:%H:%M:%S.%f}"[:-3] + f"  {text if len(text) <= _MAX_LINE else text[:_MAX_LINE] + '…'}"
