"""Run the application under test as a separate process, in any language."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from psp_sandbox.testing.live_app import AppError, bind
from psp_sandbox.testing.recording import Recording

if TYPE_CHECKING:
    import httpx

START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02
_NAME_LENGTH: Final = 80
_OUTPUT_BYTES: Final = 20_000
# Ends the application's process group when this process ends, however it ends: then the pipe is at its end.
_WATCH: Final = 'read _; kill -s KILL -- "-$1" 2> /dev/null'


class StartProcess(Protocol):
    """The fixture `live_process`. See `World.live_process`."""

    def __call__(
        self,
        command: Sequence[str | os.PathLike[str]],
        /,
        *,
        path: str = "/webhooks",
        ready: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: "str | os.PathLike[str] | None" = None,
        timeout: float = START_SECONDS,
        endpoint: Mapping[str, Any] | None = None,
        one_clock: bool = False,
    ) -> "LiveProcess":
        """Run a command until the test ends."""


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with bind() as found:
        port: int = found.getsockname()[1]
        return port


@dataclass(slots=True)
class LiveProcess:
    """An application that runs as a process, with a webhook endpoint that sends to it."""

    command: tuple[str, ...]
    url: str
    port: int
    webhook_url: str
    """Where the application takes its webhooks. The plugin takes them first, and passes them on."""
    webhook_secret: str
    endpoint_id: str
    _env: Mapping[str, str]
    _cwd: "str | os.PathLike[str] | None"
    _ready: str | None
    _timeout: float
    _recording: Recording = field(default_factory=Recording)
    _log: Any = field(default_factory=tempfile.TemporaryFile)
    _process: "subprocess.Popen[bytes] | None" = None
    _watch: "subprocess.Popen[bytes] | None" = None
    _client: "httpx.Client | None" = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    """A webhook's answer may restart the application in another thread than the test's."""

    @property
    def client(self) -> "httpx.Client":
        """An httpx client for the application, with its URL as the base URL."""
        if self._client is None:
            self._client = self._recording.client(self.url)
        return self._client

    @property
    def name(self) -> str:
        """The command as one would type it, in one line."""
        return textwrap.shorten(shlex.join(self.command), _NAME_LENGTH, placeholder=" …")

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the application runs."""
        return None if self._process is None else self._process.poll()

    @property
    def output(self) -> str:
        """What the application has printed, also before restarts: the last 20,000 bytes."""
        with contextlib.suppress(OSError, ValueError):
            self._log.flush()
            size = os.fstat(self._log.fileno()).st_size
            return os.pread(self._log.fileno(), _OUTPUT_BYTES, max(0, size - _OUTPUT_BYTES)).decode("utf-8", "replace").strip()
        return ""

    def start(self) -> None:
        """Start the application, and wait until it is ready. Raises AppError, with what it has printed."""
        with self._lock:
            try:
                self._process = subprocess.Popen(  # noqa: S603 (the test's own command, no shell)
                    self.command, env=self._env, cwd=self._cwd, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                    start_new_session=True,  # Ctrl-C must not stop it before the test's teardown has used it
                )  # fmt: skip
            except OSError as error:
                raise AppError(f"`{self.name}` cannot be started: {error}") from None
            self._watch = subprocess.Popen(  # noqa: S603 (a fixed command)
                ["/bin/sh", "-c", _WATCH, "sh", str(self._process.pid)], stdin=subprocess.PIPE, start_new_session=True
            )
            try:
                self._wait()
            except BaseException:  # Ctrl-C too
                self._end(signal.SIGKILL)
                raise

    def _wait(self) -> None:
        deadline = time.monotonic() + self._timeout
        while not self._is_ready():
            if self.exit_code is not None:
                raise AppError(f"`{self.name}` ended with exit code {self.exit_code}. It printed:\n\n{self._printed()}")
            if time.monotonic() > deadline:
                where = self._ready or f"port {self.port}; it must listen on 127.0.0.1, at the port in the variable PORT"
                raise AppError(
                    f"`{self.name}` did not answer within {self._timeout:g} s at {where}. It printed:\n\n{self._printed()}"
                )
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        if self._ready is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False
        import httpx

        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{self.url}{self._ready}", timeout=min(self._timeout, 5), trust_env=False, verify=False)  # noqa: S501 (plain HTTP)
            return answer.is_success
        return False

    def _printed(self) -> str:
        return self.output or "(nothing)"

    def restart(self) -> None:
        """End the application as a deployment does, or start it again after `kill`, on the same port. Raises AppError."""
        with self._recording.during("restart"), self._lock:
            self._end(signal.SIGTERM)
            self.start()

    def kill(self) -> None:
        """End the application in the middle of whatever it does, as a crash does. `restart` starts it again."""
        with self._recording.during("kill"), self._lock:
            self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the application. Its webhook endpoint stays, so that deliveries fail as if the application were down."""
        with self._recording.during("stop"), self._lock:
            self._end(signal.SIGTERM)

    def close(self) -> None:
        """End the application, and forget what it has printed."""
        with self._lock:
            self._end(signal.SIGTERM)
        self._log.close()

    def _end(self, number: signal.Signals) -> None:
        if self._client is not None:  # its connections lead to the process that ends
            self._client.close()
            self._client = None
        if self._process is None or self._watch is None:
            return
        self._signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        # Also what the application has started and left behind, such as the server that `npm start` runs.
        self._signal(signal.SIGKILL)
        self._process.wait()
        assert self._watch.stdin is not None
        self._watch.stdin.close()
        self._watch.wait()
        self._watch = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS denies it when only zombies are left
            os.killpg(self._process.pid, number)
