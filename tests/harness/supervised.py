"""Run a supervisor in a separate process, with stand-in programs for the API, the worker and the others."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

SERVER = """
import http.server, os, socket
from sandbox.server.runtime.lifeline import follow_lifeline
follow_lifeline()
class PidHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), PidHandler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(os.environ["SANDBOX_LISTEN_FD"].split(",")[0]))
server.serve_forever()
"""
WORKER = """
import time
from sandbox.server.runtime.lifeline import follow_lifeline
follow_lifeline()
time.sleep(1000)
"""
KEYS = {"merchant_id": "mer_1", "api_key": "key", "member_api_key": "member", "webhook_secret": None, "ipn_secret": "s"}
PRINT_KEYS = f"print({json.dumps(KEYS)!r})"
RUN = f"""
import json, sys
from dataclasses import replace
from pathlib import Path
from sandbox.cli.failures import Failure
from sandbox.cli.run import run_command
from sandbox.cli.up import run_up
from sandbox.server.runtime import child
from sandbox.server.runtime.options import Options, Programs
child._FIRST_DELAY = 0.01
def program(text):
    return (sys.executable, "-c", text)
programs = Programs(
    api=program({SERVER!r}), worker=program({WORKER!r}),
    migrate=program("print('migrated')"), seeds=program({PRINT_KEYS!r}),
)
given = json.loads(sys.argv[1])
programs = replace(programs, **{{name: program(text) for name, text in given.pop("programs", {{}}).items()}})
for name in ("data", "ready_file"):
    given[name] = Path(given[name]) if given.get(name) else None
user_command = given.pop("user_command", None)
options = Options(programs=programs, **given)
try:
    sys.exit(run_up(options, as_json=True) if user_command is None else run_command(options, user_command))
except Failure as failure:
    failure.show(as_json=False)
    sys.exit(failure.exit_code)
"""


Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found | None], what: str, seconds: float = 180) -> Found:
    """Poll until the condition is truthy and return its value. Raises AssertionError, naming `what`, after `seconds`."""
    deadline = time.monotonic() + seconds
    is_late = False
    while not (found := condition()):
        assert not is_late, f"{what} did not happen within {seconds} seconds"
        time.sleep(0.05)
        is_late = time.monotonic() > deadline  # poll once more: the machine may have been suspended
    return found


def end(process: "subprocess.Popen[bytes]") -> None:
    """Stop a sandbox. Kill it and raise TimeoutExpired if it does not stop within 120 s, which exceeds all its time limits."""
    process.terminate()
    try:
        process.wait(120)
    finally:
        process.kill()  # has no effect if the process has ended
        process.wait()


def is_over(process: psutil.Process) -> bool:
    """Whether the process has ended, even if its parent has not collected its exit code."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def child_of(supervisor: psutil.Process, program: str) -> psutil.Process | None:
    """Return the direct child that runs this program text, this module, or an executable of this name; or None."""
    for process in supervisor.children():
        with contextlib.suppress(psutil.Error):
            # Compare whole words: a new child briefly shows its parent's command line, which contains all program texts.
            # Match an executable by the end of its path, followed by a space: Redis appends its address to its name.
            words = process.cmdline()[:4]
            if program in words or f"/{program} " in "".join(words[:1]) + " ":
                return process
    return None


def environment(has_stores: bool = True) -> dict[str, str]:
    """Return the environment without the variables that configure the sandbox or select other stores.

    Without `has_stores`, the URLs of both stores are set, so that the run does not start its own. The stand-in programs never
    use them.
    """
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in ("DATABASE_URL", "REDIS_URL") and not key.startswith(("SANDBOX_", "PROMETHEUS_", "PSP_"))
    }
    return inherited if has_stores else inherited | {"DATABASE_URL": "postgresql://nowhere/", "REDIS_URL": "redis://nowhere"}


def command(options: dict[str, Any]) -> list[str]:
    """Return the command that starts a supervisor with these options, on free ports unless given."""
    return [sys.executable, "-P", "-c", RUN, json.dumps({"port": 0, "ipn_port": 0} | options)]


@dataclass
class Run:
    """A started supervisor. `seen` holds every process that was observed as its descendant, by process id."""

    process: "subprocess.Popen[str]"
    ready_file: Path
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    def ready(self) -> dict[str, Any]:
        """Wait until the run is ready, and return the content of its ready file."""

        def read_if_present() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.output()
            return json.loads(self.ready_file.read_text()) if self.ready_file.exists() else None

        found = wait_for(read_if_present, "ready")
        self.remember_descendants()
        return found

    def remember_descendants(self) -> list[psutil.Process]:
        """Return the current descendants, and remember them for `assert_nothing_left`."""
        now = psutil.Process(self.process.pid).children(recursive=True)
        self.seen |= {process.pid: process for process in now}
        return now

    def child(self, program: str) -> psutil.Process | None:
        """Return the direct child that runs this program, or None. See `child_of`."""
        found = child_of(psutil.Process(self.process.pid), program)
        if found is not None:
            self.seen[found.pid] = found
        return found

    def output(self) -> str:
        """Wait for the end of the run and return its output."""
        return self.process.communicate(timeout=240)[0]

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send the signal, wait for the end, and return (exit code, output)."""
        self.process.send_signal(number)
        text = self.output()
        return self.process.returncode, text

    def assert_nothing_left(self) -> None:
        """Fail unless all observed processes end."""
        wait_for(lambda: all(is_over(process) for process in self.seen.values()), "the end of all processes")


class Starter:
    """Starts runs, ephemeral by default. `close` stops all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: list[Run] = []

    def __call__(self, prefix: Sequence[str] = (), has_stores: bool = True, stdin: int | None = None, **options: Any) -> Run:
        """Start a run.

        `prefix` is a command to start it with. `options` are fields of `Options`, and also `programs` (by name, the Python
        source of a program that replaces ours) and `user_command` (the command of `psp run`).
        """
        ready_file = Path(options.setdefault("ready_file", str(self._folder / f"ready-{len(self._runs)}.json")))
        options.setdefault("data", None)
        process = subprocess.Popen(
            [*prefix, *command(options)],
            env=environment(has_stores),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tempfile.gettempdir(),
        )
        self._runs.append(Run(process, ready_file))
        return self._runs[-1]

    def close(self) -> None:
        """Stop the runs that are still up, and check that none left a process behind."""
        for run in self._runs:
            if run.process.poll() is None:
                run.process.terminate()
                try:
                    run.output()
                except subprocess.TimeoutExpired:
                    run.process.kill()
            if run.process.stdout is not None:
                run.process.stdout.close()
            run.process.wait()
            run.assert_nothing_left()
