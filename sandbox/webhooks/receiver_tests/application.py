"""Start, kill and restart the receiver under test as a process of this machine."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

_PAUSE: Final = 0.05
_STANDARD_ERROR: Final = 2


class ApplicationError(Exception):
    """The application cannot be started or stopped. The message says why."""


class Application:
    """A command that serves the URL of a receiver. Use it as an asynchronous context manager.

    Its process gets a group of its own, so that the processes which it starts are killed with it.
    """

    def __init__(self, command: Sequence[str], url: str, start_seconds: float = 30.0) -> None:
        parts = urlsplit(url)
        self._command = list(command)
        self._address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self._seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        """Start the application. Raises ApplicationError."""
        if await self._answers():
            raise ApplicationError(f"Something listens on port {self._address[1]} already; stop it first.")
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it, and wait until it accepts connections. Raises ApplicationError."""
        try:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 -- the user's own command; it starts in an instant
                self._command, stdin=subprocess.DEVNULL, stdout=_STANDARD_ERROR, start_new_session=True
            )
        except OSError as error:
            raise ApplicationError(f"Cannot start {self._command[0]}: {error.strerror}.") from None
        deadline = asyncio.get_running_loop().time() + self._seconds
        while not await self._answers():
            if self._process.poll() is not None:
                raise ApplicationError(
                    f"{self._command[0]} ended with code {self._process.returncode} before it accepted connections."
                )
            if asyncio.get_running_loop().time() > deadline:
                raise ApplicationError(f"Nothing listens on port {self._address[1]} after {self._seconds:g} s.")
            await asyncio.sleep(_PAUSE)

    async def kill(self) -> None:
        """Kill it in the middle of its work, as a crash or a lost machine does."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)

    async def restart(self) -> None:
        """Start it again after `kill`. Raises ApplicationError, also if another process still listens."""
        if await self._answers():
            raise ApplicationError(
                "The receiver still listens after its process was killed: the command must stay in the foreground."
            )
        await self.start()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(*self._address), 1)
        except OSError:  # includes TimeoutError
            return False
        writer.close()
        return True
