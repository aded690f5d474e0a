"""Copy the logs of a run's processes to the terminal, for `--verbose`.

    python -m sandbox.server.runtime.log_echo LOGS LIFELINE

This is a separate process. A paused terminal must not stop the supervisor, and a supervisor that forks must not have threads.
The processes write to files rather than pipes, so that they do not fail when the supervisor is killed.
"""

import select
import signal
import sys
from pathlib import Path
from types import FrameType


class LogEcho:
    """Follows all logs in a directory and prints each new line with the name of its process."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._read: dict[Path, int] = {}
        self._stopped = False

    def stop(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Copy the remaining lines and end. This is a signal handler."""
        self._stopped = True

    def follow(self, lifeline: int) -> None:
        """Copy until `stop` is called or the supervisor dies. Raises OSError if the terminal is gone."""
        while not self._stopped:
            self._copy()
            self._stopped |= bool(select.select([lifeline], [], [], 0.1)[0])
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
                continue  # the line is incomplete: wait for the rest
            self._read[log] = offset + (whole or len(data))
            for line in data[: whole or len(data)].decode("utf-8", "replace").splitlines():
                sys.stdout.write(f"[{log.stem}] {line}\n")
            sys.stdout.flush()


def main() -> None:
    """Copy until SIGTERM, or until the supervisor or the terminal is gone."""
    echo = LogEcho(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, echo.stop)
    try:
        echo.follow(int(sys.argv[2]))
    except OSError:
        return


if __name__ == "__main__":
    main()
