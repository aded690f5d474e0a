"""Copies what the processes of a run write to their logs to the terminal, for `--verbose`."""

import threading
from collections.abc import Callable
from pathlib import Path


class LogEcho:
    """Follows every log of a directory in a thread and gives each new line, with the process's name, to `say`.

    The processes write to files and not to pipes of ours, so that none of them breaks when the supervisor is killed.
    """

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        self._logs = logs
        self._say = say
        self._read: dict[Path, int] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log echo", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Copy what is still there and end."""
        self._stopped.set()
        self._thread.join(2)

    def _follow(self) -> None:
        while not self._stopped.wait(0.1):
            self._copy()
        self._copy()

    def _copy(self) -> None:
        for log in sorted(self._logs.glob("*.log")):
            try:
                begin = self._read.get(log, 0)
                if log.stat().st_size <= begin:
                    continue
                with log.open("rb") as file:
                    file.seek(begin)
                    data = file.read(1 << 20)
            except OSError:
                continue
            whole = data.rfind(b"\n") + 1
            if not whole and len(data) < 1 << 20:
                continue  # half a line: the rest is being written
            self._read[log] = begin + (whole or len(data))
            for line in data[: whole or len(data)].decode("utf-8", "replace").splitlines():
                self._say(f"[{log.stem}] {line}")
