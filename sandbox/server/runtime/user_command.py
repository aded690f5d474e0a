"""The command that `psp run` runs with a sandbox: its environment, the signals forwarded to it, and its exit code."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from sandbox.server.runtime.ready import Ready
from sandbox.server.runtime.run_directories import StartError
from sandbox.server.runtime.signals import Signals

NOT_EXECUTABLE = 126
NOT_FOUND = 127
_GRACE_SECONDS = 10.0


class UserCommandError(StartError):
    """The command could not be started. `exit_code` is the one a shell would return."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UserCommand:
    """One command. It runs in this process group, so it can use the terminal."""

    def __init__(self, argv: Sequence[str], environment: Callable[[Ready], Mapping[str, str]] | None = None) -> None:
        """`environment` returns further variables for the command."""
        self._argv = list(argv)
        self._environment = environment or (lambda ready: {})
        self._process: subprocess.Popen[bytes] | None = None
        self._kill_at: float | None = None

    def start(self, ready: Ready) -> None:
        """Start the command with the sandbox's URLs and keys in its environment. Raises UserCommandError."""
        try:
            # Let the command inherit the descriptors that our caller opened for it, such as make's jobserver. Our own are not
            # inheritable.
            self._process = subprocess.Popen(  # noqa: S603 (the user's own command, no shell)
                self._argv, env={**os.environ, **environment_for(ready), **self._environment(ready)}, close_fds=False
            )
        except FileNotFoundError as error:
            raise UserCommandError(f"{self._argv[0]}: command not found", NOT_FOUND) from error
        except OSError as error:
            raise UserCommandError(f"{self._argv[0]}: {error.strerror}", NOT_EXECUTABLE) from error

    @property
    def running(self) -> bool:
        """Whether the command has started and not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code; 128 + n if signal n ended the command; None if it never started or still runs."""
        code = None if self._process is None else self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def forward(self, signals: Signals) -> None:
        """Forward the signals that ask the run to end. Kill the command ten seconds after one other than Ctrl-C."""
        for number in signals.take():
            if number == signal.SIGINT and _is_in_foreground():
                continue  # the terminal has already sent it to the command
            self._send(number)
            if number != signal.SIGINT and self._kill_at is None:
                self._kill_at = time.monotonic() + _GRACE_SECONDS
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._send(signal.SIGKILL)

    def end(self) -> None:
        """End the command if it still runs, and wait for it."""
        if self.running:
            assert self._process is not None
            self._send(signal.SIGTERM)
            try:
                self._process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def environment_for(ready: Ready) -> dict[str, str]:
    """Return the variables for a command that uses the sandbox. The `psp` commands read the same ones."""
    variables = {
        "PSP_URL": ready.api_url,
        "PSP_API_KEY": ready.keys.api_key,
        "PSP_ADMIN_KEY": ready.admin_key,
        "PSP_IPN_URL": ready.ipn_url,
        "PSP_IPN_SECRET": ready.keys.ipn_secret,
    }
    return {name: value for name, value in variables.items() if value is not None}


def _is_in_foreground() -> bool:
    """Return whether this process group is in the foreground of a terminal, which then sends Ctrl-C to the whole group."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
