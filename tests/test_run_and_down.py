"""`psp run`, `psp down` and the start of `psp up`, run as real processes with fake server and worker programs."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sandbox.cli.entry import delete_stale_ready_file
from tests.harness.supervised import Starter, environment, wait_for

SHELL = ["/bin/sh", "-c"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Yield a function that starts supervisors. They end with the test."""
    starter = Starter(tmp_path)
    yield starter
    starter.close()


def psp(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line and wait for it to exit."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "sandbox.cli.entry", *arguments],
        env=environment() | env, capture_output=True, text=True, check=False,
    )  # fmt: skip


def occupied_port() -> socket.socket:
    """Return a socket that listens on a free port, which is then in use."""
    return socket.create_server(("127.0.0.1", 0))


# ---- psp run


def test_run_passes_the_sandbox_to_the_command_and_exits_with_its_exit_code(start: Starter) -> None:
    script = 'env | grep ^PSP_ | sort; curl -sS -o /dev/null -w "%{http_code}\\n" "$PSP_URL/health"; exit 7'
    run = start(has_stores=False, user_command=[*SHELL, script])
    lines = run.output().splitlines()
    assert run.process.returncode == 7
    names = ["PSP_ADMIN_KEY", "PSP_API_KEY", "PSP_IPN_SECRET", "PSP_IPN_URL", "PSP_URL"]
    variables = dict(line.split("=", 1) for line in lines[:-1])
    assert list(variables) == names
    assert (variables["PSP_API_KEY"], variables["PSP_IPN_SECRET"]) == ("key", "s")
    assert variables["PSP_URL"] != variables["PSP_IPN_URL"]
    assert lines[-1] == "200", "nothing else must be on standard output"
    assert not run.ready_file.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_forwards_a_signal_and_waits_for_the_command(start: Starter, number: signal.Signals) -> None:
    """The sandbox keeps running while the command cleans up. `psp run` exits with the command's exit code."""
    name = number.name.removeprefix("SIG")
    clean_up = 'curl -sS -o /dev/null -w "%{http_code}" "$PSP_URL/health"; exit 9'
    run = start(
        has_stores=False, user_command=[*SHELL, f"trap '{clean_up}' {name}; echo started; while :; do sleep 0.05; done"]
    )
    assert run.process.stdout is not None
    assert run.process.stdout.readline() == "started\n"
    run.remember_descendants()
    code, text = run.end(number)
    assert (code, text) == (9, "200")


def test_run_exits_with_the_signal_that_ended_the_command(start: Starter) -> None:
    run = start(has_stores=False, user_command=[*SHELL, "kill -KILL $$"])
    run.output()
    assert run.process.returncode == 128 + signal.SIGKILL


def test_ctrl_c_in_a_terminal_reaches_the_command_once(start: Starter) -> None:
    """The terminal sends it to the whole process group. If psp sent a second one, pytest, for example, would skip teardown."""
    counter_program = (
        "import os, signal, sys, time\n"
        "count = 0\n"
        "def count_signal(*_):\n"
        "    global count\n"
        "    count += 1\n"
        "signal.signal(signal.SIGINT, count_signal)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(count))\n"
        "print('started', flush=True)\n"
        # Sleep briefly: Python goes back to sleep if the second signal arrives just after it has handled the first.
        "while True: time.sleep(0.05)\n"
    )
    terminal_program = (
        "import fcntl, os, sys, termios\nos.setsid()\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\nos.execv(sys.argv[1], sys.argv[1:])"
    )
    keyboard, terminal = os.openpty()
    try:
        run = start(
            [sys.executable, "-c", terminal_program], False, terminal, user_command=[sys.executable, "-c", counter_program]
        )
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == "started\n"
        run.remember_descendants()
        os.write(keyboard, b"\x03")
        assert os.read(keyboard, 2) == b"^C", "the terminal must have read it"
        # SIGTERM is forwarded, after any earlier signal.
        assert run.end(signal.SIGTERM) == (1, "")
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_run_does_not_start_a_sandbox_if_the_command_does_not_exist() -> None:
    ended = psp("run", "--ephemeral", "--", "no-such-command-anywhere")
    assert (ended.returncode, ended.stdout) == (127, "")
    assert ended.stderr == "psp run: no-such-command-anywhere: command not found\n"


def test_run_reports_that_a_command_cannot_be_executed(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a program")
    run = start(has_stores=False, user_command=[str(tmp_path / "text")])
    assert "Permission denied" in run.output()
    assert run.process.returncode == 126


def test_run_does_not_run_the_command_if_the_sandbox_cannot_start(start: Starter) -> None:
    with occupied_port() as occupied:
        run = start(has_stores=False, port=occupied.getsockname()[1], user_command=[*SHELL, "echo ran"])
        text = run.output()
    assert "already in use" in text
    assert "ran" not in text.split()
    assert run.process.returncode == 125


# ---- psp down


def test_down_stops_a_sandbox_and_waits_until_all_its_processes_have_ended(start: Starter, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run = start(has_stores=False, data=str(data))
    run.ready()
    ended = psp("down", "--data", str(data))
    assert (ended.returncode, ended.stdout) == (0, "stopped\n")
    assert not any(process.is_running() for process in run.seen.values())
    assert run.output().splitlines()[-1] == "stopped"
    assert run.process.returncode == 0

    again = psp("down", "--data", str(data))
    assert (again.returncode, again.stderr) == (1, f"psp down: nothing is running on {data}.\n")
    assert psp("down", "--data", str(tmp_path / "no such folder")).returncode == 1


def test_down_does_not_signal_a_process_that_reuses_a_dead_supervisors_pid(start: Starter, tmp_path: Path) -> None:
    """The reaper keeps the lock while it cleans up. By then the pid in the lock can belong to another process."""
    data = tmp_path / "data"
    run = start(has_stores=False, data=str(data), programs={"worker": "import time; time.sleep(1000)"})
    run.ready()
    reaper = wait_for(lambda: run.child("sandbox.server.runtime.reaper"), "the reaper")
    reaper.suspend()
    run.process.kill()
    run.process.wait()
    unrelated = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        lock = data / "psp.lock"
        before = lock.stat()
        lock.write_text(str(unrelated.pid))
        os.utime(lock, (before.st_atime, before.st_mtime - 60))
        down = subprocess.Popen(
            [sys.executable, "-m", "sandbox.cli.entry", "down", "--json", "--data", str(data)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        files = psutil.Process(down.pid).open_files
        wait_for(lambda: any(file.path == str(lock) for file in files()), "psp down to open the lock")
        reaper.resume()
        assert json.loads(down.communicate(timeout=180)[0]) == {"stopped": True, "pid": None}
        assert down.returncode == 0
        assert unrelated.poll() is None
    finally:
        reaper.resume()
        unrelated.kill()
        unrelated.wait()


# ---- the ready file and the start


def test_a_stale_ready_file_is_deleted_before_any_slow_import(tmp_path: Path) -> None:
    """A script can wait for the file as soon as it has started psp. So the file is deleted before modules are loaded."""
    ready_file = tmp_path / "ready.json"
    ready_file.write_text('{"api_url": "http://127.0.0.1:9"}')
    slow = tmp_path / "modules"
    slow.mkdir()
    (slow / "typer.py").write_text(f"import os, sys; sys.exit(9 if os.path.exists({str(ready_file)!r}) else 0)")
    entry = "from sandbox.cli.entry import main; main()"
    arguments = ["up", "--ephemeral", f"--ready-file={ready_file}"]
    ended = subprocess.run(
        [sys.executable, "-c", entry, *arguments], env=environment() | {"PYTHONPATH": str(slow)}, check=False
    )
    assert ended.returncode == 0
    assert not ready_file.exists()


@pytest.mark.parametrize(
    ("arguments", "is_deleted"),
    [
        (["up", "--ready-file", "PATH"], True),
        (["up", "--ready-file=PATH", "--verbose"], True),
        (["run", "--ephemeral", "--ready-file", "PATH", "--", "true"], True),
        (["run", "--ephemeral", "--", "psp", "up", "--ready-file", "PATH"], False),
        (["up", "--ready-file", "PATH", "--help"], False),
        (["balance", "--ready-file", "PATH"], False),
        (["up", "--ready-file"], False),
    ],
)
def test_only_a_ready_file_that_will_be_written_is_deleted(tmp_path: Path, arguments: list[str], is_deleted: bool) -> None:
    path = tmp_path / "ready.json"
    path.touch()
    delete_stale_ready_file([argument.replace("PATH", str(path)) for argument in arguments])
    assert path.exists() is not is_deleted


def test_an_unwritable_ready_file_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "missing" / "ready.json"):
        ended = psp("up", "--ephemeral", "--port", "0", "--ipn-port", "0", "--ready-file", str(path))
        assert ended.returncode == 1
        assert f"The ready file {path} cannot be" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("is_loaded", [False, True])
def test_ctrl_c_before_a_command_runs_prints_no_traceback(tmp_path: Path, is_loaded: bool) -> None:
    slow = tmp_path / "modules"
    slow.mkdir()
    wait = "import time; print('loading', flush=True); time.sleep(1000)"
    code = "from sandbox.cli.entry import main; main()"
    if is_loaded:
        # typer needs a tenth of a second to build the parser of the commands.
        code = f"import typer.main\ndef slow(*_: object) -> None:\n    {wait}\ntyper.main.get_command = slow\n{code}"
    else:
        (slow / "typer.py").write_text(wait)
    with subprocess.Popen(
        [sys.executable, "-c", code, "up", "--ephemeral"],
        env=environment() | {"PYTHONPATH": str(slow)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell makes background jobs ignore SIGINT, and Python inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == -signal.SIGINT


# ---- ports


def test_the_error_names_the_ports_in_use_and_how_to_choose_others() -> None:
    with occupied_port() as one, occupied_port() as two:
        api, ipn = one.getsockname()[1], two.getsockname()[1]
        arguments = ["up", "--ephemeral", "--port", str(api)]
        first = psp(*arguments, "--ipn-port", "0")
        both = psp(*arguments, "--ipn-port", str(ipn))
        by_make = psp(*arguments, "--ipn-port", "0", PSP_UP_BY_MAKE="1")
    assert (first.returncode, both.returncode, by_make.returncode) == (1, 1, 1)
    in_use = f"Port {api} on 127.0.0.1 is already in use; "
    assert in_use + "choose another port with --port PORT, or use a free one with --port 0." in first.stderr
    assert f"Ports {api} and {ipn} on 127.0.0.1 are already in use; " in both.stderr
    assert "--port 0 --ipn-port 0" in both.stderr
    assert in_use + "to use a free port, run: make up ARGS='--port 0'." in by_make.stderr
