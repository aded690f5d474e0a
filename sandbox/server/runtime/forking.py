"""Start the sandbox's programs by forking this process, which has imported them. A child then starts in milliseconds.

A forked program runs as with `python -P -m MODULE`: with its own session, environment, descriptors, signal handlers and command
line. It never returns into the code that forked it. The forking process must have no other threads and no event loop.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import importlib.util
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from psp_sandbox import application

CAN_FORK: Final = sys.platform == "linux"
"""On macOS, system libraries may crash in a process that was forked and has not called exec."""


class Forked:
    """A forked child. It has the methods of `subprocess.Popen` that the supervisor uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code (-n if signal n ended it), or None while it runs."""
        return self._collect(os.WNOHANG)

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        status = self._collect(0)
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the child has ended: another process may have its pid by then."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it immediately."""
        self.send_signal(signal.SIGKILL)

    def _collect(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def module_of(argv: Sequence[str]) -> str | None:
    """Return the module that a command line `python -P -m MODULE ...` of this Python runs, None for any other command."""
    return argv[3] if tuple(argv[:3]) == (sys.executable, "-P", "-m") else None


def preload(modules: Iterable[str], env: Mapping[str, str], pause: Callable[[], None]) -> None:
    """Import modules as they would be imported under `env`, for all later forks, and call `pause` after each.

    A module may name others in PRELOAD, which its `main` imports.
    """
    before, path = dict(os.environ), sys.path[:]
    gc.disable()
    try:
        for module in modules:
            try:
                _set_environment(env)  # prometheus_client, for example, reads it when it is imported
                application.put_first()
                # If this fails, it fails again in the child, whose log then shows the reason.
                with contextlib.suppress(Exception):
                    for name in getattr(importlib.import_module(_main_module(module)), "PRELOAD", ()):
                        importlib.import_module(name)
            finally:
                _set_environment(before)
                sys.path[:] = path
            pause()
    finally:
        # A garbage collection writes to every object that it visits, which would copy the memory that the processes share.
        gc.freeze()
        gc.enable()


def fork(
    argv: Sequence[str],
    env: Mapping[str, str],
    streams: tuple[int, int, int],
    pass_fds: Iterable[int] = (),
    cwd: Path | None = None,
) -> Forked:
    """Run a module's `main` in a child, as the command line `argv` would (see `module_of`).

    `streams` become its standard input, output and error. Of all other descriptors the child keeps only `pass_fds`.
    """
    # Block signals until the child has reset its handlers. Until then, the supervisor's handlers would swallow them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _run(argv, env, streams, {0, 1, 2, *pass_fds}, cwd, mask)
        return Forked(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _run(
    argv: Sequence[str],
    env: Mapping[str, str],
    streams: tuple[int, int, int],
    keep: set[int],
    cwd: Path | None,
    mask: Iterable[int],
) -> NoReturn:
    status = 1
    try:
        try:
            os.setsid()
            os.umask(0o077)
            if cwd is not None:
                os.chdir(cwd)
            _reset_signals()
            _replace_files(streams, keep)
            _set_environment(env)
            application.put_first()
            set_command_line(argv)
            module = importlib.import_module(_main_module(argv[3]))
            sys.argv = [module.__file__ or argv[3], *argv[4:]]
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            module.main()
            status = 0
        except SystemExit as error:
            status = _exit_status(error)
        except BaseException:
            traceback.print_exc()
    finally:
        # Run nothing that belongs to the parent: no `finally` of its frames, no exit handlers, no flush of its buffers.
        os._exit(status)


def _exit_status(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        # Ignored signals stay ignored, as after an exec.
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _replace_files(streams: tuple[int, int, int], keep: set[int]) -> None:
    # Copy all of them first, because one may have the number that another one gets.
    for number, copy in enumerate([fcntl.fcntl(stream, fcntl.F_DUPFD, 3) for stream in streams]):
        os.dup2(copy, number)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in keep:
            with contextlib.suppress(OSError):  # the descriptor that listed the directory
                os.close(number)
    sys.stdin = io.TextIOWrapper(os.fdopen(0, "rb", closefd=False))
    # Unbuffered, as with PYTHONUNBUFFERED: a crash loses no line.
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(os.fdopen(number, "wb", 0, closefd=False), errors=errors, write_through=True)
        for number, errors in ((1, None), (2, "backslashreplace"))
    )


def _set_environment(env: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)


def _main_module(name: str) -> str:
    spec = importlib.util.find_spec(name)
    return f"{name}.__main__" if spec is not None and spec.submodule_search_locations is not None else name


def set_command_line(argv: Sequence[str]) -> None:
    """Make `ps` show `argv` as the command line of this process. Linux only.

    The text replaces the original command line in memory and is cut to its length. The last byte is not zero, which tells the
    kernel that the text ends at the first zero.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        program = os.path.basename(argv[0])
        Path("/proc/self/comm").write_bytes(os.fsencode(program)[:15])
        capacity = end - start - 2
        fits = capacity >= len(os.fsencode(" ".join(argv)))
        text = os.fsencode(" ".join([argv[0] if fits else program, *argv[1:]]))[:capacity]
        ctypes.memmove(start, text.ljust(capacity + 1, b"\0") + b"\1", capacity + 2)
