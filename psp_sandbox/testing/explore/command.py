"""`psp explore -- COMMAND`: explore a test suite in any language. Each run of the command has a fresh merchant."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from psp_sandbox.client import Client
from psp_sandbox.testing.connections import send
from psp_sandbox.testing.explore.books import Names, rows_of_command, rows_of_url
from psp_sandbox.testing.explore.judge import Evidence
from psp_sandbox.testing.explore.points import REST, Point, Recording, plan, recording_of
from psp_sandbox.testing.explore.rest import HOURS, Subject, arm, prepare
from psp_sandbox.testing.explore.results import Exploration, Kind, LeftOut, NotTried, PointResult, Verdict
from psp_sandbox.testing.explore.run_folder import RunFolder
from psp_sandbox.testing.explore.schedule import Run, named, schedule
from psp_sandbox.testing.explore.trial import ReadBooks, Trial, conclude
from psp_sandbox.testing.options import wire_time

if TYPE_CHECKING:
    from psp_sandbox.client.models import NewMerchant

_WORKER: Final = "command"
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02
_OUTPUT_BYTES: Final = 2000
_UNSTABLE: Final = "Its calls or events differ between two runs without faults, so no point has a stable name."
_UNUSED: Final = (
    "It does not use the merchant of PSP_API_KEY: nothing was called, and no event was delivered. "
    "Tests that make a merchant each need --own-merchants."
)
_NOT_TRIED: Final[Mapping[Kind, str]] = {
    Kind.KILLED_AT_CALL: "The application cannot be killed in the middle of a call.",
    Kind.KILLED_BEFORE_ANSWER: "The application cannot be killed in the middle of a delivery.",
    Kind.KILLED_AFTER_ANSWER: "The application cannot be killed in the middle of a delivery.",
}


@dataclass(frozen=True, slots=True)
class Suite:
    """What is run, and how its books are read."""

    tests: Mapping[str, Sequence[str]]
    """Name → the command that runs it; a suite that cannot run its tests one by one is one test."""
    app: Sequence[str] | None = None
    """The command that starts the application, in the foreground."""
    webhook_url: str | None = None
    books_command: str | None = None
    books_url: str | None = None
    names: Names = field(default_factory=dict)
    timeout: float = 300.0
    """How long one run may take, in seconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is tried."""

    depth: int = 1
    seed: int = 0
    ends: float = float("inf")
    """When to stop, of the monotonic clock."""
    only: str | None = None
    """The name of the one point to try."""
    resume: bool = False


class CommandError(Exception):
    """A command of the user's cannot be run. The message says which, and why."""


Planned = tuple[list[Point], Evidence]
"""The points of a test, and what its runs are compared with."""


@dataclass(slots=True)
class Outcome:
    """How a run of a test ended, and what it has called."""

    result: PointResult
    evidence: Evidence
    recording: Recording
    failure: str | None


class CommandExplorer:
    """Explores a suite. `say` gets a line about the progress; `again` is the command line that repeats a point, without it."""

    unused = _UNUSED
    """Why a test is left out that does not use the sandbox."""

    def __init__(
        self, client: Client, suite: Suite, limits: Limits, folder: Path, say: Callable[[str], object], again: Sequence[str]
    ) -> None:
        self._client = client
        self._suite = suite
        self._limits = limits
        self._folder = RunFolder(folder)
        self._say = say
        self._again = again
        self._left_out: list[LeftOut] = []
        self._has_books = suite.books_command is not None or suite.books_url is not None

    def plan(self) -> dict[str, Planned]:
        """Run each test without faults, twice, and return its points. Raises CommandError, PspError."""
        self._folder.begin(resume=self._limits.resume)
        return dict(self._plans())

    def _plans(self) -> Iterator[tuple[str, Planned]]:
        for test in self._suite.tests:
            first = self._run(test, (), None)
            is_alone = _why_left_out(first, self.unused) is not None or self._limits.only is not None
            yield from self._planned(test, first, first if is_alone else self._run(test, (), None))

    def _planned(self, test: str, first: Outcome, second: Outcome) -> Iterator[tuple[str, Planned]]:
        """Yield the plan of a test after two runs without faults, unless it is left out."""
        is_stable = second.recording.signature == first.recording.signature
        reason = _why_left_out(first, self.unused) or _why_left_out(second, self.unused) or (None if is_stable else _UNSTABLE)
        if reason is not None:
            self._left_out.append(LeftOut(test, reason))
        elif first.result.verdict is Verdict.WRONG:
            self._left_out.append(LeftOut(test, f"Its books differ without any fault: {first.result.reason}"))
            yield test, ([REST], first.evidence)
        else:
            yield test, ([REST, *plan(first.recording, can_restart=False)], first.evidence)

    def explore(self, plans: Mapping[str, Planned]) -> Exploration:
        """Try the points, and return the results, which are also in the folder. Ctrl-C keeps those so far."""
        started = datetime.now(UTC)
        runs = self._runs(plans)
        with contextlib.suppress(KeyboardInterrupt):
            self._try_all(runs, plans)
        found = {(one.test, one.name): one for one in self._folder.results()}
        exploration = Exploration(
            command=shlex.join(self._again),
            seed=self._limits.seed,
            started_at=wire_time(started),
            virtual_hours=HOURS,
            points=tuple(found[run.test, run.name] for run in runs if (run.test, run.name) in found),
            left_out=tuple(self._left_out),
            not_tried=tuple(NotTried(kind, reason) for kind, reason in _NOT_TRIED.items()),
            has_books=self._has_books,
            planned=sum(not self._contains_finding(run) for run in runs),
        )
        self._folder.summary.write_text(exploration.to_json(), "utf-8")
        return exploration

    def _try_all(self, runs: Sequence[Run], plans: Mapping[str, Planned]) -> None:
        done = {(one.test, one.name) for one in self._folder.results()}
        left = [run for run in runs if (run.test, run.name) not in done]
        while left and time.monotonic() <= self._limits.ends:
            next_ones = self._batch(left)
            tried = len(runs) - len(left)
            left = [run for run in left if run not in next_ones]
            batch = [run for run in next_ones if not self._contains_finding(run)]
            results = self._try(batch, plans) if batch else ()
            assert len(results) == len(batch)
            for number, result in enumerate(results, start=tried + 1):
                self._folder.add(_WORKER, result)
                self._say(f"{number} of {len(runs)}: {result.verdict}  {result.test}  {result.name}")

    def _batch(self, left: Sequence[Run]) -> Sequence[Run]:
        """Return the next runs that one run of the command can try."""
        return left[:1]

    def _try(self, batch: Sequence[Run], plans: Mapping[str, Planned]) -> Sequence[PointResult]:
        return [self._run(run.test, without_rest(run.points), plans[run.test][1]).result for run in batch]

    def _runs(self, plans: Mapping[str, Planned]) -> list[Run]:
        points = {test: found for test, (found, _) in plans.items()}
        if self._limits.only is None:
            return schedule(points, self._limits.depth, self._limits.seed)
        wanted = ((test, named(found, self._limits.only)) for test, found in points.items())
        return [Run(test, found) for test, found in wanted if found is not None]

    def _contains_finding(self, run: Run) -> bool:
        if len(run.points) == 1 or self._limits.only is not None:
            return False
        wrong = {(one.test, one.name) for one in self._folder.results() if one.verdict is Verdict.WRONG}
        return any((run.test, point.name) in wrong for point in run.points)

    # One run.

    def _run(self, test: str, points: tuple[Point, ...], baseline: Evidence | None) -> Outcome:
        began = time.monotonic()
        fields = {"seed": self._limits.seed, "opening_balance": "1000000.00", "frozen_at": wire_time(datetime.now(UTC))}
        url = {} if self._suite.webhook_url is None else {"webhook_url": self._suite.webhook_url}
        merchant: Any = self._client.merchants.create(name=f"explore {test}"[-100:], **fields, **url)  # type: ignore[arg-type]  # read from JSON in the same way
        with contextlib.ExitStack() as closing:
            closing.callback(self._client.merchants.delete, merchant.merchant_id)
            folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="psp-explore-"))
            client, key_id = prepare(self._client.with_key(merchant.api_key))
            env = self._environment(merchant, folder)
            subject = Subject(client, key_id, lambda seconds: client.clock.advance(seconds=seconds), client.drain)
            arm(subject, points)
            if self._suite.app is not None:
                process = _Process(self._suite.app, env, self._suite.webhook_url or self._suite.books_url)
                closing.callback(process.stop)
                subject.restart = process.restart
            failure = run_command(self._suite.tests[test], env, self._suite.timeout)
            trial = self._trial(test, points or (REST,), baseline, self._books(env), began)
            return outcome_of(trial, subject, failure)

    def _trial(
        self, test: str, points: tuple[Point, ...], baseline: Evidence | None, books: ReadBooks | None, began: float
    ) -> Trial:
        names, worlds = self._suite.names, self._folder.worlds
        return Trial(test, points, baseline, books, names, worlds, self._repeat(points), began)

    def _environment(self, merchant: "NewMerchant", folder: str) -> dict[str, str]:
        return {
            "PSP_URL": self._client.url,
            "PSP_API_KEY": merchant.api_key,
            "PSP_WEBHOOK_SECRET": merchant.webhook_secret or "",
            "PSP_IPN_SECRET": merchant.ipn_secret,
            "PSP_RUN_DIR": folder,
        }

    def _books(self, env: Mapping[str, str]) -> ReadBooks | None:
        command, url = self._suite.books_command, self._suite.books_url
        if command is not None:
            return lambda: rows_of_command(command, env, self._suite.names)
        return None if url is None else lambda: rows_of_url(url, self._suite.names)

    def _repeat(self, points: Sequence[Point]) -> str:
        name = " + ".join(point.name for point in points)
        before, _, command = " ".join(map(shlex.quote, self._again)).partition(" -- ")
        return f"{before} --point {shlex.quote(name)} -- {command}"


def outcome_of(trial: Trial, subject: Subject, failure: str | None) -> Outcome:
    """Let a run of a test come to rest, and judge it."""
    subject.client.clock.freeze()
    subject.client.drain()
    recording = recording_of(send(subject.client, "GET", "/sandbox/v1/world").json(), subject.app_key_id)
    result, evidence = conclude(trial, subject, failure)
    return Outcome(result, evidence, recording, failure)


def without_rest(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Return the points at which something misbehaves."""
    return tuple(one for one in points if one != REST)


class _Process:
    """The application, which can be killed and started again. Each start waits until it listens at `url`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], url: str | None) -> None:
        self._command = command
        self._env = env
        self._url = url
        self._process = self._start()
        self._wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(  # noqa: S603 - the user's own command
                self._command, env={**os.environ, **self._env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise CommandError(f"{self._command[0]}: {error.strerror}") from error

    def restart(self) -> None:
        """Kill it, as a power cut does, and start it again."""
        self._end(signal.SIGKILL)
        self._process = self._start()
        self._wait()

    def _wait(self) -> None:
        if self._url is None:
            return
        at = urlsplit(self._url)
        address = (at.hostname or "127.0.0.1", at.port or (443 if at.scheme == "https" else 80))
        ends = time.monotonic() + _START_SECONDS
        while not _listens(address):
            code = self._process.poll()
            if code is not None:
                raise CommandError(
                    f"{shlex.join(self._command)} ended with exit code {code} before it listened at {self._url}."
                )
            if time.monotonic() > ends:
                self.stop()
                raise CommandError(f"{shlex.join(self._command)} did not listen at {self._url} within {_START_SECONDS:g} s.")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End it with all its children."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _listens(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=1):
            return True
    except OSError:
        return False


def run_command(command: Sequence[str], env: Mapping[str, str], timeout: float) -> str | None:
    """Run a command, and return why it failed in one line, or None. Raises CommandError if it cannot be run."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command
            command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout, check=False,
        )  # fmt: skip
    except OSError as error:
        raise CommandError(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        return f"It was still running after {timeout:g} s."
    if done.returncode == 0:
        return None
    lines = done.stdout[-_OUTPUT_BYTES:].decode("utf-8", "replace").strip().splitlines()
    return f"Exit code {done.returncode}. {lines[-1][:300] if lines else ''}".rstrip()


def _why_left_out(outcome: Outcome, unused: str) -> str | None:
    if outcome.failure is not None:
        return f"It fails without any fault: {outcome.failure}"
    if outcome.evidence.problem is not None:
        return outcome.evidence.problem
    if not outcome.recording.calls and not outcome.recording.events:
        return unused
    return None
