"""Copy the logs of a run's processes to the terminal, for `--verbose`."""

import threading
from collections.abc import Callable
from pathlib import Path


class LogEcho:
    """Follows all logs in a directory, in a thread, and passes each new line to `say` with the name of its process.

    The processes write to files rather than pipes, so that they do not fail when the supervisor is killed.
    """

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        self._logs = logs
        self._say = say
        self._read: dict[Path, int] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log echo", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Copy the remaining lines and end."""
        self._stopped.set()
        self._thread.join(2)

    def _follow(self) -> None:
        while not self._stopped.wait(0.1):
            self._copy()
        self._copy()

    def _copy(self) -> None:
        for log in sorted(self._logs.glob("*.log")):
            try:
                offset = self._read.get(log, 0)
                if log.stat().st_size <= offset:
                    continue
                with log.open("rb") as file:
                    file.seek(offset)
                    data = file.read(1 << 20)
            except OSError:
                continue
            whole = data.rfind(b"\n") + 1
            if not whole and len(data) < 1 << 20:
                continue  # half a line: wait for the rest
            self._read[log] = offset + (whole or len(data))
            for line in data[: whole or len(data)].decode("utf-8", "replace").splitlines():
                self._say(f"[{log.stem}] {line}")
