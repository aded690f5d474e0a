"""`pytest --psp-explore`: the tests run twice without faults, and then once per point.

Each process runs the baselines of its tests, as pytest-xdist distributes them. Then all processes read all plans, and each
takes the next run that nobody has taken, of whichever test.
"""

import os
import shlex
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from psp_sandbox.client import PspError
from psp_sandbox.testing.explore import report
from psp_sandbox.testing.explore.attempt import Attempt, one_line, reason_of, record, why_left_out, why_unstable
from psp_sandbox.testing.explore.books import BooksError, Names, read_rows, rows_of_command, rows_of_url
from psp_sandbox.testing.explore.fixtures import Fixtures
from psp_sandbox.testing.explore.judge import Evidence
from psp_sandbox.testing.explore.points import OF_RESTARTS, REST, Point, plan
from psp_sandbox.testing.explore.progress import PROGRESS_SECONDS, Progress
from psp_sandbox.testing.explore.rest import HOURS, Subject, arm, killer, prepare
from psp_sandbox.testing.explore.results import Exploration, Kind, LeftOut, NotTried, PointResult, Verdict
from psp_sandbox.testing.explore.run_folder import NAME, RunFolder
from psp_sandbox.testing.explore.schedule import Run, named, point_from_json, point_to_json, schedule
from psp_sandbox.testing.explore.trial import ReadBooks, Trial, conclude, evidence_from_json, evidence_to_json
from psp_sandbox.testing.options import wire_time
from psp_sandbox.testing.results import seconds_of
from psp_sandbox.testing.world import World

_INPUT: Final = "psp_explore"
_MAIN: Final = "main"
_NO_RESTART: Final = "The fixture psp_restart, which restarts the application, is not there."
_NO_KILL: Final = "An application that runs in the process of its tests cannot be killed in the middle of a call."


@dataclass(slots=True)
class _Planned:
    """A test that is explored: its points, and what its runs are compared with."""

    points: list[Point]
    evidence: Evidence


class Explorer:
    """A pytest plugin, in each process that runs tests and in the main process of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._input: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._only: str | None = config.getoption("--psp-point")
        self._lists: bool = config.getoption("--psp-explore-list")
        self._resumes: bool = config.getoption("--psp-explore-resume")
        self._depth: int = config.getoption("--psp-explore-depth")
        self._seed: int = config.getoption("--psp-explore-seed")
        self._ends = _end_of(config.getoption("--psp-explore-budget"))
        self._started = datetime.now(UTC)
        self._own: dict[str, _Planned] = {}
        self._left_out: list[LeftOut] = []
        self._attempt: Attempt | None = None
        self.exploration: Exploration | None = None
        """The results, at the end of the session in the main process."""
        self._planned: list[Run] = []
        self._folder = RunFolder(config.invocation_params.dir / NAME if self._input is None else Path(self._input[_INPUT]))
        if self._input is None:
            self._folder.begin(resume=self._resumes)

    # What pytest calls.

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist where the folder is."""
        node.workerinput[_INPUT] = str(self._folder.path)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Let the other workers not wait for one that has crashed before it has planned."""
        worker = node.gateway.id
        if not self._folder.has_plan(worker):
            reason = "The pytest-xdist worker that ran some of the tests has crashed."
            self._folder.write_plan(worker, {"tests": {}, "left_out": [[worker, reason]]})

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Explore only the tests that use the sandbox."""
        others = [item for item in items if "psp" not in getattr(item, "fixturenames", ())]
        if others:
            config.hook.pytest_deselected(items=others)
            items[:] = [item for item in items if item not in others]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        """Run a test's baseline in place of the test."""
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        self._run_baseline(item, nextitem)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """After the baselines, run the points. The main process of pytest-xdist only shows the progress."""
        if self._config.pluginmanager.has_plugin("dsession"):
            with Progress(self._show_progress):
                return (yield)
        result = yield
        self._explore(session)
        return result

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Let the world come to rest when the test ends, while its fixtures are still there."""
        failure: str | None = None
        self._ready(item)
        try:
            return (yield)
        except Exception as error:
            failure = one_line(error)
            raise
        except pytest.skip.Exception:
            raise
        except pytest.fail.Exception as error:
            failure = one_line(error)
            raise
        finally:
            self._settle(item, failure)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Put the results of all processes together, and let findings fail the session."""
        if self._input is not None:
            return
        self.exploration = self._collect()
        self._folder.summary.write_text(self.exploration.to_json(), "utf-8")
        name = self._config.getoption("--psp-report-file")
        if name and not self._lists:
            from psp_sandbox.testing.evidence.render import write_exploration

            write_exploration(self.exploration, self._config.invocation_params.dir / name)
        found_nothing = self._only is not None and not self.exploration.points
        if session.exitstatus == pytest.ExitCode.OK and (found_nothing or not self.exploration.ok):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the report."""
        if self.exploration is None:
            return
        terminalreporter.section("PSP Sandbox: explore")
        if self._lists:
            for run in self._planned:
                terminalreporter.write_line(f"{run.test}  {run.name}")
        elif self._only is not None and not self.exploration.points:
            terminalreporter.write_line(f"No test has the point {self._only!r}. --psp-explore-list shows all points.", red=True)
        else:
            for line in report.as_text(self.exploration):
                terminalreporter.write_line(line)
            terminalreporter.write_line(f"Results: {self._folder.summary}")

    # What the fixture `psp` calls.

    def begin(self, world: World) -> None:
        """Prepare the merchant of a run, before the test and its application use it. Raises PspError."""
        attempt = self._attempt
        if attempt is None:
            return
        client, attempt.key_id = prepare(world.client)
        world.use_client(client)
        attempt.subject = Subject(client, attempt.key_id, world.advance, world.drain)
        arm(attempt.subject, attempt.points)

    # The baselines.

    def _run_baseline(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        first, reports = self._without_faults(item, nextitem)
        for one in reports:
            item.ihook.pytest_runtest_logreport(report=one)
        reason = why_left_out(first, reports)
        if reason is None and self._only is None:
            second, reports = self._without_faults(item, nextitem)
            reason = why_left_out(second, reports) or why_unstable(first, second)
        if reason is not None:
            self._leave_out(item.nodeid, reason)
            return
        assert first.recording is not None
        assert first.evidence is not None
        assert first.result is not None
        self._own[item.nodeid] = _Planned([REST, *plan(first.recording, can_restart=first.can_restart)], first.evidence)
        if first.result.verdict is Verdict.WRONG:
            # Every other point would show the same difference.
            self._own[item.nodeid].points = [REST]
            self._leave_out(item.nodeid, f"Its books differ without any fault: {first.result.reason}")

    def _without_faults(self, item: pytest.Item, nextitem: pytest.Item | None) -> tuple[Attempt, list[pytest.TestReport]]:
        attempt, reports = self._run(item, nextitem, Attempt((), None, records=True))
        if any(one.failed for one in reports):
            # A mistake that is a race can fail a test without a fault, now and then. It must not hide what explore finds.
            return self._run(item, nextitem, Attempt((), None, records=True))
        return attempt, reports

    def _leave_out(self, test: str, reason: str) -> None:
        self._left_out.append(LeftOut(test, reason))

    def _run(
        self, item: pytest.Item, nextitem: pytest.Item | None, attempt: Attempt
    ) -> tuple[Attempt, list[pytest.TestReport]]:
        from _pytest.runner import runtestprotocol  # what plugins that repeat tests use

        # The last run may have been a test of another module, whose fixtures are still there.
        item.session._setupstate.teardown_exact(item)
        self._attempt = attempt
        try:
            # With the parent as the next item, all but the test's own fixtures stay.
            reports = runtestprotocol(item, log=False, nextitem=nextitem or item.parent)  # type: ignore[arg-type]  # any node will do
        finally:
            self._attempt = None
        return attempt, reports

    # The start and the end of a run.

    def _ready(self, item: pytest.Item) -> None:
        """Get what restarts the application, as soon as the application is there."""
        attempt = self._attempt
        if attempt is None or attempt.subject is None:
            return
        attempt.subject.restart = Fixtures(item).value("psp_restart")
        attempt.can_restart = attempt.subject.restart is not None
        for point in attempt.points:
            if point.kind in OF_RESTARTS:
                world: World = item.funcargs["psp"]  # type: ignore[attr-defined]  # of functions and methods
                world.received.on_answer = killer(attempt.subject, point)

    def _settle(self, item: pytest.Item, failure: str | None) -> None:
        attempt = self._attempt
        if attempt is None or attempt.subject is None:
            return
        attempt.failure = failure
        world: World = item.funcargs["psp"]  # type: ignore[attr-defined]  # of functions and methods, which alone use fixtures
        try:
            if not world.is_frozen:
                world.freeze()
            if attempt.records:
                attempt.recording = record(world, attempt)
            fixtures = Fixtures(item)
            names: Names = fixtures.value("psp_status_names") or {}
            trial = Trial(
                item.nodeid, attempt.points or (REST,), attempt.baseline, self._books(world, fixtures, names), names,
                self._folder.worlds, self._repeat(item, attempt), attempt.began,
            )  # fmt: skip
        except (PspError, AssertionError, BooksError) as error:
            attempt.problem = one_line(error)
            return
        attempt.result, attempt.evidence = conclude(trial, attempt.subject, failure)

    def _books(self, world: World, fixtures: "Fixtures", names: Names) -> ReadBooks | None:
        command, url = self._config.getoption("--psp-books"), self._config.getoption("--psp-books-url")
        if command is not None:
            return lambda: rows_of_command(command, world.env, names)
        if url is not None:
            return lambda: rows_of_url(url, names)
        if not fixtures.has("psp_books"):
            return None

        def read() -> Sequence[Any]:
            return read_rows(fixtures.value("psp_books", again=True), names)

        return read

    def _repeat(self, item: pytest.Item, attempt: Attempt) -> str:
        name = " + ".join(point.name for point in attempt.points or (REST,))
        _, separator, rest = item.nodeid.partition("::")
        test = os.path.relpath(item.path, self._config.invocation_params.dir) + separator + rest
        given = [("-c", self._config.getoption("inifilename")), ("--rootdir", self._config.getoption("rootdir"))]
        options = [part for option, value in given if value for part in (option, str(value))]
        return shlex.join(["pytest", *options, test, "--psp-point", name])

    # The points.

    def _explore(self, session: pytest.Session) -> None:
        worker = _MAIN if self._input is None else self._input["workerid"]
        workers = 1 if self._input is None else self._input["workercount"]
        self._folder.write_plan(worker, self._plan_to_json())
        if self._lists:
            return
        plans = self._read_plans(workers)
        items = {item.nodeid: item for item in session.items}
        done = {(result.test, result.name) for result in self._folder.results()}
        runs = [run for run in self._schedule(plans, items) if (run.test, run.name) not in done]
        self._planned = runs
        shown = time.monotonic()
        for number, run in enumerate(runs):
            if time.monotonic() > self._ends:
                return
            if run.test in items and self._folder.claim(number) and not self._contains_finding(run):
                self._folder.add(worker, self._try(items[run.test], run, plans[run.test].evidence))
                if self._input is None and time.monotonic() - shown > PROGRESS_SECONDS:
                    shown = time.monotonic()
                    self._show_progress()

    def _schedule(self, plans: dict[str, _Planned], order: Sequence[str] | dict[str, Any]) -> list[Run]:
        points = {test: plans[test].points for test in order if test in plans}
        if self._only is not None:
            runs = ((test, named(found, self._only)) for test, found in points.items())
            return [Run(test, found) for test, found in runs if found is not None]
        return schedule(points, self._depth, self._seed)

    def _contains_finding(self, run: Run) -> bool:
        """Whether a point of a pair is wrong alone, so that the pair would show the same."""
        if len(run.points) == 1 or self._only is not None:
            return False
        wrong = {(one.test, one.name) for one in self._folder.results() if one.verdict is Verdict.WRONG}
        return any((run.test, point.name) in wrong for point in run.points)

    def _try(self, item: pytest.Item, run: Run, baseline: Evidence) -> PointResult:
        points = tuple(point for point in run.points if point != REST)
        attempt, reports = self._run(item, None, Attempt(points, baseline if points else None, records=False))
        if attempt.result is not None:
            return attempt.result
        failed = next((one for one in reports if one.failed), None)
        reason = attempt.problem or (
            f"The test's {failed.when} failed: {reason_of(failed)}" if failed else "The test ended early."
        )
        first, *others = run.points
        return PointResult(
            run.test, first.at, first.place, first.kind, Verdict.UNSETTLED, reason, repeat=self._repeat(item, attempt),
            with_points=tuple(point.name for point in others),
        )  # fmt: skip

    # Plans and results of all processes.

    def _plan_to_json(self) -> dict[str, Any]:
        tests = {
            test: {"points": list(map(point_to_json, one.points)), "evidence": evidence_to_json(one.evidence)}
            for test, one in self._own.items()
        }
        return {"tests": tests, "left_out": [[one.test, one.reason] for one in self._left_out]}

    def _read_plans(self, workers: int) -> dict[str, _Planned]:
        return {
            test: _Planned(list(map(point_from_json, one["points"])), evidence_from_json(one["evidence"]))
            for stored in self._folder.plans(workers)
            for test, one in stored["tests"].items()
        }

    def _collect(self) -> Exploration:
        stored = self._folder.plans(0)
        plans = self._read_plans(0)
        order = {test: number for number, test in enumerate(sorted(plans))}
        self._planned = self._schedule(plans, order)
        names = {(run.test, run.name): number for number, run in enumerate(self._planned)}
        found = [one for one in self._folder.results() if (one.test, one.name) in names]
        results = sorted({(one.test, one.name): one for one in found}.values(), key=lambda one: names[one.test, one.name])
        wrong = {(one.test, one.name) for one in results if one.verdict is Verdict.WRONG}
        skipped = sum(len(run.points) > 1 and any((run.test, one.name) in wrong for one in run.points) for run in self._planned)
        return Exploration(
            command=self._command(),
            seed=self._seed,
            started_at=wire_time(self._started),
            virtual_hours=HOURS,
            points=tuple(results),
            left_out=tuple(LeftOut(test, reason) for one in stored for test, reason in one["left_out"]),
            not_tried=tuple(_not_tried(plans)),
            has_books=any(one.evidence.has_books for one in plans.values()),
            planned=len(self._planned) - skipped,
        )

    def _command(self) -> str:
        """Return this command line. Reports are passed on, so the operator's key is left out."""
        key = self._config.getoption("--psp-admin-key") or ""
        arguments = [argument.replace(key, "KEY") if key else argument for argument in self._config.invocation_params.args]
        return shlex.join(["pytest", *arguments])

    def _show_progress(self) -> None:
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        plans = self._read_plans(0)
        total = len(self._schedule(plans, sorted(plans)))
        if reporter is None or not total:
            return
        results = self._folder.results()
        wrong = sum(one.verdict is Verdict.WRONG for one in results)
        elapsed = (datetime.now(UTC) - self._started).total_seconds()
        left = min(elapsed / max(len(results), 1) * (total - len(results)), max(self._ends - time.monotonic(), 0.0))
        reporter.write_line(f"explore: {len(results)} of {total} tried, {wrong} wrong, about {left:.0f} s left")


def _not_tried(plans: dict[str, _Planned]) -> Iterator[NotTried]:
    kinds = {point.kind for one in plans.values() for point in one.points}
    yield NotTried(Kind.KILLED_AT_CALL, _NO_KILL)
    for kind in (Kind.KILLED_BEFORE_ANSWER, Kind.KILLED_AFTER_ANSWER):
        if kind not in kinds:
            yield NotTried(kind, _NO_RESTART)


def _end_of(budget: str | None) -> float:
    return float("inf") if budget is None else time.monotonic() + seconds_of(budget)
