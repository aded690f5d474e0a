"""`psp explore -- COMMAND` with tests that make a merchant each, and say when they begin and end.

Such tests do not disturb each other, so one run of the command tries one point of each test.
"""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from psp_sandbox.client import PspError
from psp_sandbox.testing.explore.books import rows_of_url
from psp_sandbox.testing.explore.command import CommandExplorer, Outcome, Planned, outcome_of, run_command, without_rest
from psp_sandbox.testing.explore.judge import Evidence
from psp_sandbox.testing.explore.points import REST, Point
from psp_sandbox.testing.explore.rest import Subject, arm, prepare
from psp_sandbox.testing.explore.results import LeftOut, PointResult, Verdict
from psp_sandbox.testing.explore.schedule import Run

VARIABLE: Final = "PSP_EXPLORE_URL"
"""The environment variable with the URL to which tests say that they begin and end."""
_LOOPBACK: Final = "127.0.0.1"
_MAX_BYTES: Final = 65_536
_RESTART_SECONDS: Final = 30.0
_ENDLESS: Final = "It said that it begins, but never that it ended."

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(slots=True)
class _Test:
    """A test that runs."""

    name: str
    subject: Subject
    began: float


@dataclass(slots=True)
class _Round:
    """One run of the command: the points of each test, and the outcomes of the tests that have ended."""

    points: Mapping[str, tuple[Point, ...]]
    baselines: Mapping[str, Evidence]
    running: dict[str, _Test] = field(default_factory=dict)
    """By the key of the application."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failure: str | None = None
    """Why the command failed."""


class OwnMerchantsExplorer(CommandExplorer):
    """Explores a suite whose tests make their merchants. They tell `PSP_EXPLORE_URL`:

    - `POST /begin` with `test` and `api_key`, the application's, before it is used. The answer has an `api_key` for the test's
      own calls, which are then told apart from the application's.
    - `POST /rest` with this `api_key`, a `failure` in one line or null, and `books_url` and `restart_url`, or null, while the
      application still runs. The answer comes when the merchant is at rest. A POST to `restart_url` restarts the application.
    """

    unused = "Its application does not call the sandbox, and no event is delivered to it."

    def _plans(self) -> Iterator[tuple[str, Planned]]:
        first = self._run_all({}, {})
        second = first if self._limits.only is not None else self._run_all({}, {})
        self._left_out += [LeftOut(one.name, _ENDLESS) for one in first.running.values()]
        for test, outcome in first.outcomes.items():
            yield from self._planned(test, outcome, second.outcomes.get(test, outcome))

    def _batch(self, left: Sequence[Run]) -> Sequence[Run]:
        return list({run.test: run for run in reversed(left)}.values())

    def _try(self, batch: Sequence[Run], plans: Mapping[str, Planned]) -> Sequence[PointResult]:
        tried = self._run_all({run.test: run.points for run in batch}, {run.test: plans[run.test][1] for run in batch})
        return [self._result(run, tried) for run in batch]

    def _result(self, run: Run, tried: _Round) -> PointResult:
        if run.test in tried.outcomes:
            return tried.outcomes[run.test].result
        first, *others = run.points
        reason = f"The test did not say that it ended. {tried.failure or ''}".strip()
        return PointResult(
            run.test, first.at, first.place, first.kind, Verdict.NOT_REACHED, reason, repeat=self._repeat(run.points),
            with_points=tuple(point.name for point in others),
        )  # fmt: skip

    def _run_all(self, points: Mapping[str, tuple[Point, ...]], baselines: Mapping[str, Evidence]) -> _Round:
        """Run the command once. Raises CommandError."""
        tests = _Round(points, baselines)
        (command,) = self._suite.tests.values()
        with _listening({"/begin": lambda told: self._begin(tests, told), "/rest": lambda told: self._end(tests, told)}) as url:
            tests.failure = run_command(command, {"PSP_URL": self._client.url, VARIABLE: url}, self._suite.timeout)
        self._has_books = self._has_books or any(one.evidence.has_books for one in tests.outcomes.values())
        return tests

    def _begin(self, tests: _Round, told: Mapping[str, Any]) -> Mapping[str, Any]:
        name, api_key = str(told["test"]), str(told["api_key"])
        client, key_id = prepare(self._client.with_key(api_key))
        subject = Subject(client, key_id, lambda seconds: client.clock.advance(seconds=seconds), client.drain)
        arm(subject, without_rest(tests.points.get(name, ())))
        tests.running[api_key] = _Test(name, subject, time.monotonic())
        return {"api_key": client._caller.address.keys["merchant"]}

    def _end(self, tests: _Round, told: Mapping[str, Any]) -> Mapping[str, Any]:
        one = tests.running.pop(str(told["api_key"]), None)
        if one is None:  # not a KeyError, whose text would be the key
            raise ValueError("The test with this api_key has not said that it begins, or has said that it ended.")
        url, restart_url, names = told.get("books_url"), told.get("restart_url"), self._suite.names
        books = None if url is None else lambda: rows_of_url(str(url), names)
        one.subject.restart = None if restart_url is None else lambda: _post(str(restart_url))
        points = tests.points.get(one.name, (REST,))
        trial = self._trial(one.name, points, tests.baselines.get(one.name), books, one.began)
        outcome = outcome_of(trial, one.subject, told.get("failure"))
        tests.outcomes[one.name] = outcome
        return {"verdict": outcome.result.verdict}


def _post(url: str) -> None:
    httpx.post(url, timeout=_RESTART_SECONDS, trust_env=False).raise_for_status()


@contextlib.contextmanager
def _listening(answers: Mapping[str, Answer]) -> Iterator[str]:
    """Answer requests on loopback, and yield the URL."""
    server = http.server.ThreadingHTTPServer((_LOOPBACK, 0), _handler(answers))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="psp-explore", daemon=True)
    thread.start()
    try:
        yield f"http://{_LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(answers: Mapping[str, Answer]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, answer = self._answered()
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _answered(self) -> tuple[int, Mapping[str, Any]]:
            size = int(self.headers.get("content-length", 0))
            if self.path not in answers or size > _MAX_BYTES:
                self.close_connection = True
                return 404, {"detail": f"There is POST {' and POST '.join(answers)}, with at most {_MAX_BYTES} bytes."}
            try:
                return 200, answers[self.path](json.loads(self.rfile.read(size)))
            except (PspError, ValueError, KeyError, TypeError) as error:
                return 400, {"detail": f"{type(error).__name__}: {error}"}

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    return Handler
