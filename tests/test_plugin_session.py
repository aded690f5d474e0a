"""The sandbox of a test session: it starts when a test first needs it, all workers share it, and it ends with the session."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.harness.plugin import QUIET, Project
from tests.harness.supervised import is_over, wait_for
from tests.harness.world import Stack

pytest_plugins = ["pytester"]

_OUTER = (
    "PSP_URL",
    "PSP_API_KEY",
    "PSP_ADMIN_KEY",
    "PYTEST_ADDOPTS",
    "PYTEST_XDIST_WORKER",
    "PYTEST_XDIST_WORKER_COUNT",
)


@pytest.fixture
def project(pytester: pytest.Pytester, stack: Stack) -> Project:
    """Return a project without tests."""
    return Project(pytester, stack)


class Run:
    """A pytest of its own that starts its own sandbox. `seen` are all processes that it has started."""

    def __init__(self, folder: Path, *arguments: str, prefix: tuple[str, ...] = (), **variables: str) -> None:
        env = {name: value for name, value in os.environ.items() if name not in _OUTER}
        # A project's own database, which the sandbox must not touch.
        env |= {"DATABASE_URL": "postgresql://127.0.0.1:1/shop", "REDIS_URL": "redis://127.0.0.1:1", **variables}
        command = [*prefix, sys.executable, "-m", "pytest", *QUIET, "-p", "no:cacheprovider", *arguments]
        self._log = (folder / "pytest.log").open("w+b")
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=self._log, stderr=self._log,
            # A shell that starts the tests in the background lets them ignore Ctrl-C, and so would this process.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        self.seen: dict[int, psutil.Process] = {}

    def remember(self) -> None:
        """Remember the processes that it has started so far."""
        self.seen |= {one.pid: one for one in psutil.Process(self.process.pid).children(recursive=True)}

    def output(self) -> str:
        """Return what it has printed."""
        return Path(self._log.name).read_text()

    def assert_nothing_left(self) -> None:
        """Wait until none of its processes is left."""
        assert len(self.seen) > 4
        wait_for(lambda: all(map(is_over, self.seen.values())), "the end of all processes")

    def close(self) -> None:
        """End what is left."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.remember()
        for one in [self.process, *self.seen.values()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Yield a list for runs, which are ended after the test."""
    found: list[Run] = []
    yield found
    for run in found:
        run.close()


WAITS = """
    import pathlib, time

    def test_waits(psp):
        psp.pays("success")
        pathlib.Path("waiting").touch()
        while True:
            # Not one long sleep: it would not end if the signal came just before Python begins to sleep.
            time.sleep(0.1)
"""


def test_workers_share_one_sandbox_and_a_killed_main_process_leaves_nothing(project: Project, runs: list[Run]) -> None:
    project.write("""
        import pathlib, time
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_shares(psp, psp_sandbox_url, worker_id, number):
            psp.pays("success")
            pathlib.Path(f"url-{worker_id}").write_text(psp_sandbox_url)
            while len(list(pathlib.Path().glob("url-*"))) < 2:
                time.sleep(0.01)
            pathlib.Path(f"done-{worker_id}").touch()
            time.sleep(1000)
    """)
    folder = project.pytester.path
    # Under nohup, `psp up` would outlive the process that started it.
    run = Run(folder, "-n", "2", "--dist", "each", "-k", "0", prefix=("nohup",))
    runs.append(run)
    wait_for(lambda: run.process.poll() is not None or len(list(folder.glob("done-*"))) == 2, "both tests")
    assert run.process.poll() is None, run.output()
    run.remember()
    assert len({path.read_text() for path in folder.glob("url-*")}) == 1
    supervisors = [one for one in run.seen.values() if one.cmdline()[3:5] == ["psp_sandbox", "up"]]
    assert [one.ppid() for one in supervisors] == [run.process.pid]

    run.process.kill()
    run.process.wait()
    run.assert_nothing_left()


def test_after_ctrl_c_the_report_is_complete_and_nothing_is_left(project: Project, runs: list[Run]) -> None:
    project.write(WAITS)
    run = Run(project.pytester.path, "-p", "no:xdist")
    runs.append(run)
    wait_for(lambda: run.process.poll() is not None or (project.pytester.path / "waiting").exists(), "the test")
    assert run.process.poll() is None, run.output()
    run.remember()
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(60) == pytest.ExitCode.INTERRUPTED, run.output()
    assert all(map(is_over, run.seen.values()))
    assert "KeyboardInterrupt" in run.output()
    assert "Traceback" not in run.output()
    assert "ERROR" not in run.output()


def test_a_sandbox_that_does_not_start_says_why(project: Project, runs: list[Run]) -> None:
    project.write("""
        def test_first(psp): pass
        def test_second(psp): pass
        def test_without(): pass
    """)
    run = Run(project.pytester.path, "-p", "no:xdist", SANDBOX_ADMIN_KEY="short")
    runs.append(run)
    assert run.process.wait(60) == pytest.ExitCode.TESTS_FAILED
    output = run.output()
    assert "1 passed, 2 errors" in output
    assert "The sandbox did not start." in output
    assert "-m psp_sandbox` printed:" in output
    assert "SANDBOX_ADMIN_KEY" in output


def test_a_project_that_does_not_use_the_plugin_does_not_pay_for_it(project: Project) -> None:
    project.write("def test_nothing(): pass")
    modules = _loaded(project)
    assert "psp_sandbox.pytest_plugin" in modules
    ours = {name for name in modules if name.startswith("psp_sandbox")}
    assert ours == {"psp_sandbox", "psp_sandbox.pytest_plugin"}
    assert not modules & {"httpx", "uvicorn", "sandbox"}


def test_a_project_that_does_not_explore_does_not_load_what_explores(project: Project) -> None:
    project.write("def test_pays(psp): psp.pays()")
    modules = _loaded(project, "--psp-url", project.stack.api_url, "--psp-admin-key", project.stack.admin_key)
    assert "psp_sandbox.testing.world" in modules
    assert not {name for name in modules if name.startswith(("psp_sandbox.testing.explore", "psp_sandbox.testing.evidence"))}
    assert "jinja2" not in modules


def _loaded(project: Project, *options: str) -> set[str]:
    """Run the project's tests in a process of their own, and return the modules that it has loaded."""
    text = "import pytest, sys, json; pytest.main(sys.argv[1:]); print(); print(json.dumps([*sys.modules]))"
    command = [sys.executable, "-c", text, *QUIET, "-q", *options]
    found = subprocess.run(command, cwd=project.pytester.path, capture_output=True, text=True, check=True)
    return set(json.loads(found.stdout.splitlines()[-1]))
