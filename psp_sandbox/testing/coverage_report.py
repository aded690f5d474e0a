"""The options --psp-report, --psp-report-file and --psp-report-min: collect the coverage of all processes, and report it."""

from pathlib import Path
from typing import Any, Final

import pytest

from psp_sandbox.client import PspError
from psp_sandbox.testing.coverage import Coverage
from psp_sandbox.testing.world import World

_WORKER_OUTPUT: Final = "psp_coverage"


class CoverageReport:
    """A pytest plugin. In a worker of pytest-xdist it only collects; the main process adds up and reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._coverage = Coverage()
        self._unread = 0
        minimum: float | None = config.getoption("--psp-report-min")
        if minimum is not None and not 0 <= minimum <= 100:
            raise pytest.UsageError(f"--psp-report-min is a percentage from 0 to 100, not {minimum:g}")
        self._minimum = minimum

    def observe(self, world: World) -> None:
        """Add what the test of this world exercised."""
        try:
            self._coverage.observe(world)
        except PspError:
            # The test's own checks have reported that the sandbox does not answer.
            self._unread += 1

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add what a worker of pytest-xdist has collected. A worker that crashed has sent nothing."""
        text = getattr(node, "workeroutput", {}).get(_WORKER_OUTPUT)
        if text is not None:
            self._coverage.add(Coverage.from_json(text))

    @pytest.hookimpl(tryfirst=True)  # before pytest writes the JUnit report
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Pass the coverage on, or write the reports and decide whether it is enough."""
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput[_WORKER_OUTPUT] = self._coverage.to_json()
            return
        from _pytest.junitxml import xml_key  # pytest's record_testsuite_property works only in a test

        junit = self._config.stash.get(xml_key, None)
        if junit is not None:
            for name, value in self._coverage.as_properties():
                junit.add_global_property(name, value)
        name = self._config.getoption("--psp-report-file")
        if name:
            path = self._config.invocation_params.dir / Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._text_for(path), encoding="utf-8")
        if self._is_too_low and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table and, if the coverage is too low, the required percentage."""
        if self._config.getoption("--psp-report"):
            terminalreporter.section("PSP Sandbox: exercised by the tests")
            for line in self._coverage.as_text():
                terminalreporter.write_line(line)
            if self._unread:
                terminalreporter.write_line(f"Tests whose world could not be read: {self._unread}")
        if self._is_too_low:
            message = (
                f"PSP Sandbox: the tests exercised {self._coverage.percent:.1f} %; --psp-report-min is {self._minimum:g} %."
            )
            terminalreporter.write_line(message, red=True)

    def _text_for(self, path: Path) -> str:
        if path.suffix.lower() != ".html":
            return self._coverage.as_markdown()
        from psp_sandbox.testing.evidence.render import coverage_page

        return coverage_page(self._coverage, self._minimum)

    @property
    def _is_too_low(self) -> bool:
        return self._minimum is not None and self._coverage.percent < self._minimum
