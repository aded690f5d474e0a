"""Run a supervisor in its own process, with stand-in programs for the API, the IPN receiver, the worker and the rest."""

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
from sandbox.runtime.lifeline import follow_lifeline
follow_lifeline()
class PidHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), PidHandler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(os.environ["SANDBOX_LISTEN_FD"]))
server.serve_forever()
"""
WORKER = """
import time
from sandbox.runtime.lifeline import follow_lifeline
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
from sandbox.runtime import child
from sandbox.runtime.options import Options, Programs
child._FIRST_DELAY = 0.01
def program(text):
    return (sys.executable, "-c", text)
programs = Programs(
    api=program({SERVER!r}), ipn=program({SERVER!r}), worker=program({WORKER!r}),
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


def wait_for(look: Callable[[], Found | None], what: str, seconds: float = 180) -> Found:
    deadline = time.monotonic() + seconds
    is_late = False
    while not (found := look()):
        assert not is_late, f"{what} did not happen within {seconds} seconds"
        time.sleep(0.05)
        is_late = time.monotonic() > deadline  # look once more after the deadline: the machine may have been suspended
    return found


def end(process: "subprocess.Popen[bytes]") -> None:
    """Stop a sandbox. One that exceeds all of its own time limits is killed, and TimeoutExpired is raised."""
    process.terminate()
    try:
        process.wait(120)
    finally:
        process.kill()  # has no effect if the process has ended
        process.wait()


def is_over(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def child_of(supervisor: psutil.Process, program: str) -> psutil.Process | None:
    """Return the direct child that runs this text or module, or the executable of this name, or None."""
    for process in supervisor.children():
        with contextlib.suppress(psutil.Error):
            # Compare whole words: a new child briefly shows its parent's command line, which contains all the texts.
            # Redis appends its address to its name, so match the path of an executable by its end.
            words = process.cmdline()[:4]
            if program in words or f"/{program} " in "".join(words[:1]) + " ":
                return process
    return None


def environment(has_stores: bool = True) -> dict[str, str]:
    """Return our environment without the variables that would point the run at other stores.

    Without `has_stores`, the stores are set to addresses that the stand-in programs never use: then the run creates no
    database.
    """
    own = {
        key: value
        for key, value in os.environ.items()
        if key not in ("DATABASE_URL", "REDIS_URL") and not key.startswith(("SANDBOX_", "PROMETHEUS_", "PSP_"))
    }
    return own if has_stores else own | {"DATABASE_URL": "postgresql://nowhere/", "REDIS_URL": "redis://nowhere"}


def command(options: dict[str, Any]) -> list[str]:
    return [sys.executable, "-P", "-c", RUN, json.dumps({"port": 0, "ipn_port": 0} | options)]


@dataclass
class Run:
    """A started supervisor, and every process that was observed to be its descendant."""

    process: "subprocess.Popen[str]"
    ready_file: Path
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    def ready(self) -> dict[str, Any]:
        """Wait until it is ready, and return the content of the ready file."""

        def look() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.output()
            return json.loads(self.ready_file.read_text()) if self.ready_file.exists() else None

        found = wait_for(look, "ready")
        self.remember_descendants()
        return found

    def remember_descendants(self) -> list[psutil.Process]:
        """Return its current descendants, and remember them for `assert_nothing_left`."""
        now = psutil.Process(self.process.pid).children(recursive=True)
        self.seen |= {process.pid: process for process in now}
        return now

    def child(self, program: str) -> psutil.Process | None:
        """Return the direct child that runs this, or None."""
        found = child_of(psutil.Process(self.process.pid), program)
        if found is not None:
            self.seen[found.pid] = found
        return found

    def output(self) -> str:
        return self.process.communicate(timeout=240)[0]

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        text = self.output()
        return self.process.returncode, text

    def assert_nothing_left(self) -> None:
        wait_for(lambda: all(is_over(process) for process in self.seen.values()), "the end of all processes")


class Starter:
    """Starts runs, ephemeral by default. `close` ends all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: list[Run] = []

    def __call__(self, prefix: Sequence[str] = (), has_stores: bool = True, stdin: int | None = None, **options: Any) -> Run:
        """Start a run.

        `prefix` is a command that runs it. `options` are the fields of `Options`, and also `programs` (Python source texts
        that replace our programs, by name) and `user_command` (the command of `psp run`).
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
        """End the runs that are still up, and check that none left a process behind."""
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
