"""The reaper: a small process that cleans up after a killed supervisor and then ends.

PostgreSQL and Redis cannot read the lifeline, so the reaper does. When the supervisor has died, it waits for the sandbox's
other processes, stops Redis and then PostgreSQL, and deletes ephemeral data. Until then it holds a copy of the data directory's
lock, so that the next start waits. After a clean stop it finds nothing to do.
"""

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox.server.runtime.lifeline import GRACE_SECONDS
from sandbox.server.runtime.processes import end_processes, postgres_processes, processes_of_run, redis_processes
from sandbox.server.runtime.run_directories import delete_trees


@dataclass(frozen=True, slots=True)
class ReaperArguments:
    """The reaper's arguments, passed as one JSON object. Paths are absolute. A store that is None must not be stopped."""

    lifeline: int
    run_id: str
    postgres: str | None
    redis: str | None
    ready_file: str | None
    database_url: str
    remove: list[str]

    def argv(self) -> list[str]:
        return [sys.executable, "-P", "-m", "sandbox.server.runtime.reaper", json.dumps(asdict(self))]


def main() -> None:
    # The reaper must survive a signal that a terminal or user sends to the whole run, so that it can clean up.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    arguments = ReaperArguments(**json.loads(sys.argv[1]))
    while os.read(arguments.lifeline, 64):
        pass
    clean_up(arguments)


def clean_up(arguments: ReaperArguments) -> None:
    """End the run's remaining processes in the order of a clean stop, each step within a time limit."""
    if arguments.ready_file is not None:
        delete_ready_file(Path(arguments.ready_file), arguments.database_url)
    # The sandbox's own processes follow the lifeline themselves; the signals are for any that hang.
    end_processes(
        lambda: processes_of_run(arguments.run_id, arguments.lifeline),
        [(None, 0.5), (signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5)],
    )
    if arguments.redis is not None:
        socket = Path(arguments.redis)
        end_processes(lambda: redis_processes(socket), [(signal.SIGTERM, 5), (signal.SIGKILL, 5)])
    if arguments.postgres is not None:
        data = Path(arguments.postgres)
        end_processes(lambda: postgres_processes(data), [(signal.SIGINT, 20), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)])
    delete_trees([Path(path) for path in arguments.remove])


def delete_ready_file(path: Path, database_url: str) -> None:
    """Delete the ready file of a run, unless a later run has replaced it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads(path.read_text("utf-8")).get("database_url") == database_url:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
