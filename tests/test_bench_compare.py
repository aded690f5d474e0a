"""`psp bench compare` measures each revision with its own code, and accounts for the CPU time of all processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sandbox.cli.benches.compare import bench_preparer, compare, compare_figures
from sandbox.cli.benches.cpu import CpuMeter, cpu_seconds, kind_of, memory_megabytes
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.result import COUNT, MS, RATE, SHORTFALL, Figure, Progress, Result, cpu_figures
from sandbox.cli.benches.revision import check_out
from sandbox.cli.benches.stack import BenchError, Stack
from sandbox.cli.main import create_app
from tests.harness.waiting import until


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.test", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose first commit, `old`, has a sandbox that can be imported."""
    folder = tmp_path / "repository"
    (folder / "sandbox" / "cli").mkdir(parents=True)
    for name in ("sandbox/__init__.py", "sandbox/cli/__init__.py", "sandbox/cli/main.py"):
        (folder / name).write_text("")
    git(folder.parent, "init", "--quiet", str(folder))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "old")
    git(folder, "tag", "old")
    return folder


def worktrees(repository: Path) -> int:
    return git(repository, "worktree", "list", "--porcelain").count("worktree ")


def test_a_revision_is_checked_out_without_local_changes_and_removed_afterwards(repository: Path) -> None:
    (repository / "new.txt").write_text("not committed: a dirty working tree is allowed")
    (repository / "sandbox" / "__init__.py").write_text("changed = True")
    with check_out("old", repository) as revision:
        folder = revision.folder
        assert revision.commit == git(repository, "rev-parse", "old")
        assert (folder / "sandbox" / "__init__.py").read_text() == ""
        assert not (folder / "new.txt").exists()
    assert not folder.exists()
    assert worktrees(repository) == 1
    assert (repository / "new.txt").exists()


@pytest.mark.parametrize("error", [BenchError("failed"), KeyboardInterrupt(), SystemExit(143)])
def test_the_worktree_is_removed_if_the_measurement_fails_or_is_interrupted(repository: Path, error: BaseException) -> None:
    folders = []

    def measure() -> None:
        with check_out("old", repository) as revision:
            folders.append(revision.folder)
            raise error

    with pytest.raises(type(error)):
        measure()
    assert not folders[0].exists()
    assert worktrees(repository) == 1


def test_sigterm_removes_the_worktree(repository: Path) -> None:
    code = (
        "import sys, signal; from pathlib import Path; from sandbox.cli.benches.revision import check_out\n"
        "with check_out('old', Path(sys.argv[1])) as revision: print(revision.folder, flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(repository)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert folder.exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    process.stdout.close()
    assert not folder.exists()
    assert worktrees(repository) == 1


def test_a_missing_package_is_named_with_a_way_to_install_it(repository: Path) -> None:
    (repository / "sandbox" / "cli" / "main.py").write_text("import no_such_package")
    git(repository, "commit", "--quiet", "--all", "-m", "needs more")
    with pytest.raises(BenchError, match=r"No module named 'no_such_package'.*git show [0-9a-f]{12}:requirements\.txt"):
        contextlib.ExitStack().enter_context(check_out("HEAD", repository))
    assert worktrees(repository) == 1


def test_the_errors_for_an_unknown_revision_and_a_folder_without_git_say_what_to_do(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"has no revision 'nobody'\. Give a commit, branch or tag"):
        contextlib.ExitStack().enter_context(check_out("nobody", repository))
    with pytest.raises(BenchError, match="has no revision '--all'"):
        contextlib.ExitStack().enter_context(check_out("--all", repository))
    with pytest.raises(BenchError, match=r"is not a git checkout\. Clone the repository"):
        contextlib.ExitStack().enter_context(check_out("old", tmp_path))
    with pytest.raises(BenchError, match="is not a git checkout"):  # a subfolder of a repository
        contextlib.ExitStack().enter_context(check_out("old", repository / "sandbox"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["HEAD", "connections"], "'connections' is not a bench that can be compared. Choose from: create, lone, e2e,"),
        (["HEAD", "compare"], "'compare' is not a bench"),
        (["HEAD", "neighbors"], "'neighbors' is not a bench"),
        (["HEAD", "scale"], "'scale' is not a bench"),
        (["HEAD", "webhooks"], "'webhooks' is not a bench"),
        (["HEAD", "create", "--rounds", "0"], "'--rounds': Input should be greater than or equal to 1"),
        (["HEAD", "create", "--rounds", "51"], "'--rounds': Input should be less than or equal to 50"),
        (["HEAD", "create", "--seconds", "0"], "'--seconds': Input should be greater than or equal to 1"),
        (["HEAD", "create", "--merchants", "1001"], "'--merchants': Input should be less than or equal to 1000"),
        (["HEAD", "create", "--held", "5"], "No such option: --held"),
        (["HEAD", "create", "--preload", "5"], "--preload does not work in a comparison"),
        (["HEAD", "create", "--ready-file", "x.json"], "--ready-file does not work in a comparison"),
        (["HEAD", "e2e", "--rate", "9x"], "'9x' is not a rate"),
        ([], "Missing argument"),
    ],
)
def test_wrong_arguments_are_usage_errors(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(create_app(), ["bench", "compare", *arguments, "--json"])
    assert result.exit_code == 2
    assert message in result.output


def test_the_command_exits_with_1_for_an_unknown_revision() -> None:
    result = CliRunner().invoke(create_app(), ["bench", "compare", "no-such-revision", "create"])
    assert result.exit_code == 1
    assert "no-such-revision" in result.output


def test_a_ratio_is_this_code_divided_by_the_revision() -> None:
    before = [[Figure("http_rps", [rps], RATE), Figure("p99_ms", [40.0], MS)] for rps in (100.0, 200.0, 900.0)]
    after = [[Figure("http_rps", [rps], RATE), Figure("p99_ms", [30.0], MS)] for rps in (300.0, 100.0, 900.0)]
    changes = compare_figures(before, after)
    assert changes["http_rps"].to_json() == {
        "revision": 200, "current": 300, "ratio": 1.5, "better": "higher", "ratios": [3, 0.5, 1]
    }  # fmt: skip
    assert [(change.ratio, change.verdict) for change in changes.values()] == [(1.5, "50 % better"), (0.75, "25 % better")]
    assert [change.verdict for change in compare_figures(after, before).values()] == ["33 % worse", "33 % worse"]
    assert [change.verdict for change in compare_figures(before, before).values()] == ["the same", "the same"]


def test_only_sandbox_figures_are_compared_and_idle_processes_are_left_out() -> None:
    figures = [Figure("missing", [0], SHORTFALL), Figure("rate", [50], COUNT)]
    figures += cpu_figures("payout", [{"api": 2000.0, "ipn": 1.0, "total": 2001.0}])
    changes = compare_figures([figures], [[Figure("missing", [3], SHORTFALL), *figures[1:]]])
    assert set(changes) == {"missing", "cpu_us_per_payout.api", "cpu_us_per_payout.total"}
    assert changes["missing"].ratio is None  # the revision's figure is 0


def test_both_revisions_are_measured_alternately_with_their_own_code(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    measured: list[str] = []
    closed: list[str] = []

    @contextlib.contextmanager
    def open_stack(ready_file: Path | None, api_processes: int, workers: int, source: Path | None) -> Iterator[Stack]:
        assert (ready_file, api_processes, workers) == (None, 2, 3)
        name = "old" if source is not None and "psp-bench-revision-" in str(source) else "new"
        yield Stack(name, "", name)
        closed.append(name)

    @contextlib.contextmanager
    def opened(stack: Stack) -> Iterator[object]:
        def measure() -> list[Figure]:
            measured.append(stack.api_url)
            return [Figure("http_rps", [100.0 if stack.api_url == "old" else 150.0], RATE)]

        yield measure

    class Database:
        version = "18.1"

        def __init__(self, url: str) -> None:
            pass

    monkeypatch.setattr("sandbox.cli.benches.compare.open_stack", open_stack)
    monkeypatch.setattr("sandbox.cli.benches.compare.Database", Database)
    monkeypatch.setattr("sandbox.cli.benches.compare.check_out", lambda name: check_out(name, repository))
    result = compare("old", "create", opened, 3, 2, 3, Progress())  # type: ignore[arg-type]  # a stand-in
    assert measured == ["old", "new"] * 3
    assert closed == ["new", "old"]
    assert result.data["figures"]["http_rps"]["ratio"] == 1.5
    assert worktrees(repository) == 1


BURN = "import time\nwhile time.process_time() < {}: pass\n"


def test_cpu_time_of_a_child_counts_while_it_runs_and_after_it_has_ended() -> None:
    used = 0.3
    program = (
        "import subprocess, sys, signal\n"
        "sys.stdin.readline()\n"
        f"subprocess.run([sys.executable, '-c', {BURN.format(used)!r}], check=True)\n"
        f"running = subprocess.Popen([sys.executable, '-c', {BURN.format(used)!r} + 'import signal; signal.pause()'])\n"
        "signal.pause()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    try:
        with CpuMeter(process.pid) as meter:
            process.stdin.write(b"\n")
            process.stdin.close()
            # The kernel rounds each process's user and system time down to 0.01 s.
            until(lambda: cpu_seconds(process.pid).get("supervisor", 0.0) >= 2 * used - 0.06)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert set(meter.seconds) == {"supervisor", "total"}
    assert meter.seconds["total"] >= 2 * used - 0.1  # the meter started after the process
    assert meter.micros_per(1000)["total"] == pytest.approx(meter.seconds["total"] * 1000)


def test_cpu_time_of_other_processes_does_not_count() -> None:
    process = subprocess.Popen([sys.executable, "-c", BURN.format(0.1) + "import signal; signal.pause()"])
    try:
        until(lambda: cpu_seconds(process.pid).get("supervisor", 0.0) > 0.05)
        began = time.process_time()
        while time.process_time() - began < 0.5:
            pass
        assert cpu_seconds(process.pid)["supervisor"] < 0.5
    finally:
        process.kill()
        process.wait()


def test_without_a_process_id_there_are_no_cpu_figures() -> None:
    with CpuMeter(None) as meter:
        pass
    assert meter.seconds == {}
    assert meter.micros_per(5) == {}


@pytest.mark.parametrize(
    ("name", "command", "kind"),
    [
        ("python", ["python", "-P", "-m", "sandbox.server.serve"], "api"),
        ("python", ["python", "-P", "-m", "ipn.with_api"], "api"),
        ("python", ["python", "-P", "-m", "sandbox.serve"], "api"),  # the module's name in older revisions
        ("python", ["python", "-P", "-m", "worker"], "worker"),
        ("python", ["python", "-P", "-m", "ipn"], "ipn"),
        ("python", ["python", "-P", "-m", "sandbox.server.runtime.reaper", "{}"], "supervisor"),
        ("psp", ["psp", "up"], "supervisor"),
        ("postgres", ["postgres: sandbox postgres [local] idle"], "postgres"),
        ("valkey-server", ["valkey-server", "*:0"], "valkey"),
        ("python", ["python", "-m"], "supervisor"),
    ],
)
def test_the_kind_of_a_process_is_read_from_its_command(name: str, command: list[str], kind: str) -> None:
    assert kind_of(name, command) == kind


@dataclass
class IdleBench:
    """Reports the idle memory that it was given."""

    stack: Stack
    idle_megabytes: float

    def run(self) -> Result:
        return Result(machine=describe_machine(""), figures=[Figure("memory_mb/idle", [self.idle_megabytes], MS)])


def test_each_round_of_lone_reports_the_idle_memory_from_before_the_first_load() -> None:
    with bench_preparer("lone", partial(IdleBench))(Stack("", "", "", pid=os.getpid())) as measure:
        before = memory_megabytes(os.getpid())
        idle = [figure.median for figure in measure()]
        load = b"x" * 50_000_000
        assert [figure.median for figure in measure()] == idle
        assert memory_megabytes(os.getpid()) > before + 25, len(load)
    assert idle[0] == pytest.approx(before, abs=20)
