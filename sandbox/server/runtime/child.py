"""One supervised process: start it, watch it, restart it with an increasing delay, and stop it within a time limit."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sandbox.server.runtime.forking import CAN_FORK, Forked, fork, module_of
from sandbox.server.runtime.run_directories import SystemUser

_FIRST_DELAY = 0.2
_MAX_DELAY_SECONDS = 5.0
_STEADY_SECONDS = 10.0
_LASTING_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1

Process = subprocess.Popen[bytes] | Forked


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to start a process. Its output is appended to `log`. It inherits the descriptors in `pass_fds`."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    pass_fds: tuple[int, ...] = ()
    user: SystemUser | None = None
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    kill_signal: signal.Signals = signal.SIGKILL
    """The signal that ends it immediately. PostgreSQL needs SIGQUIT, which ends its backends too."""
    stdout: int | None = None
    """The descriptor for standard output, if that does not go to the log."""
    dies_with_parent: bool = False
    """Whether the kernel sends it `stop_signal` when its parent, the supervisor, dies. Linux only."""


def spawn(command: ProcessSpec, stdin: int = subprocess.DEVNULL, stdout: int | None = None) -> Process:
    """Start a process in its own session. A module of this project is forked, if the system allows it.

    In its own session, the process gets no Ctrl-C from the terminal: only the supervisor does, and stops everything in order.
    Standard error always goes to the log; so does standard output if `stdout` is None.
    """
    command.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    output = log if stdout is None else stdout
    user = command.user
    try:
        if CAN_FORK and user is None and module_of(command.argv) is not None:
            with open(os.devnull, "rb") as nothing:
                source = nothing.fileno() if stdin == subprocess.DEVNULL else stdin
                return fork(command.argv, command.env, (source, output, log), command.pass_fds, command.cwd)
        return subprocess.Popen(  # noqa: S603 (fixed argument lists, no shell)
            command.argv,
            env=dict(command.env),
            stdin=stdin,
            stdout=output,
            stderr=log,
            pass_fds=command.pass_fds,
            cwd=command.cwd,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            umask=0o077,
            start_new_session=True,
            # Safe: the supervisor has no other threads.
            preexec_fn=_parent_death_hook(command.stop_signal)
            if command.dies_with_parent and sys.platform == "linux"
            else None,
        )
    finally:
        os.close(log)


def _parent_death_hook(number: signal.Signals) -> Callable[[], None]:
    """Return a function that makes the kernel send this signal to a child when its parent dies.

    It is for programs that cannot read the lifeline: if supervisor and reaper are both killed, nothing else stops them.
    """
    # Look up prctl before the fork. The child calls it after changing its user, because that change cancels the request.
    return partial(_request_signal, ctypes.CDLL(None).prctl, int(number), os.getpid())


def _request_signal(prctl: Callable[..., int], number: int, parent: int) -> None:
    # If prctl fails, the run is as safe as on a system without it: the reaper still stops the program.
    prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Child:
    """A process that is restarted when it dies, until it is stopped. `probe` returns whether the running process is ready."""

    def __init__(self, command: ProcessSpec, probe: Callable[["Child"], bool]) -> None:
        self.command = command
        self.was_up = False
        """Whether it was ever ready: its probe said so, or it ran long enough. From then on, restarts are unlimited."""
        self.deaths = 0
        self.exit_status: int | None = None
        self._probe = probe
        self._process: Process | None = None
        self._started = 0.0
        self._restart_at: float | None = None

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def age(self) -> float:
        return time.monotonic() - self._started if self.running else 0.0

    @property
    def restart_at(self) -> float | None:
        """The monotonic time of the next start; None unless the process is down."""
        return self._restart_at

    def start(self) -> None:
        self._restart_at = None
        self._started = time.monotonic()
        self._process = spawn(self.command, stdout=self.command.stdout)

    def is_up(self) -> bool:
        # Poll last, because the process may have died since the probe ran.
        return self._process is not None and self._probe(self) and self._process.poll() is None

    def check(self) -> bool:
        """Detect a death, and restart the process when its delay is over. Return True if it has just died."""
        now = time.monotonic()
        if self._process is not None:
            self.exit_status = self._process.poll()
            if self.exit_status is None:
                # A process without a real probe counts as up after some seconds. Check this only while it is alive: a process
                # found dead may have died early.
                self.was_up = self.was_up or now - self._started >= _LASTING_SECONDS
                if now - self._started >= _STEADY_SECONDS:
                    self.deaths = 0
                return False
            self._process = None
            self._restart_at = now + min(_MAX_DELAY_SECONDS, _FIRST_DELAY * 2**self.deaths)
            self.deaths += 1
            return True
        if self._restart_at is not None and now >= self._restart_at:
            self.start()
        return False

    def send_stop(self) -> None:
        """Ask it to end, and do not restart it."""
        self._restart_at = None
        self._send(self.command.stop_signal)

    def send_kill(self) -> None:
        self._restart_at = None
        self._send(self.command.kill_signal)

    def destroy(self) -> None:
        """Kill it and its process group with SIGKILL, and reap it."""
        self._restart_at = None
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        self._process = None

    def reports_up(self, up_file: Path) -> bool:
        """Return whether it has reported that it is up. If it cannot report, it counts as up after a second."""
        try:
            return self.age > 1.0 or up_file.read_text() == str(self.pid)
        except OSError:
            return False

    def has_ended(self) -> bool:
        """Return whether it has ended, and reap it if so."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        return self._process is None

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def describe_exit(status: int | None) -> str:
    """Return an exit status in words: the code, or the name of the signal that ended the process."""
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"exit code {status}"


def last_lines(log: Path) -> str:
    """Return the last twelve lines of a log; empty if it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-12:])


def rotate(log: Path) -> None:
    """Rename the previous run's log to `.1`, so that this run starts an empty one."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(log, log.with_name(log.name + ".1"))
