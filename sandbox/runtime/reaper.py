"""The reaper: a tiny process that outlives a killed supervisor just long enough to leave nothing behind.

PostgreSQL and Redis know nothing of the lifeline. The reaper reads it for them: when it ends, it waits for our own
processes, stops Redis and then PostgreSQL, deletes what was ephemeral, and ends. It holds a copy of the data
directory's lock meanwhile, so that the next start waits for it. After a clean stop it finds nothing to do.
"""

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox.runtime.processes import end_processes, postgres_processes, processes_of_run, redis_processes
from sandbox.runtime.run_directories import discard


@dataclass(frozen=True, slots=True)
class ReaperArguments:
    """What the reaper has to know, as one JSON argument. Paths are absolute; None where there is nothing to end."""

    lifeline: int
    run_id: str
    postgres: str | None
    redis: str | None
    ready_file: str | None
    database_url: str
    remove: list[str]

    def argv(self) -> list[str]:
        return [sys.executable, "-P", "-m", "sandbox.runtime.reaper", json.dumps(asdict(self))]


def main() -> None:
    # It must be there when all others have been stopped, by a terminal or by a hand that signals the whole run.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    arguments = ReaperArguments(**json.loads(sys.argv[1]))
    while os.read(arguments.lifeline, 64):
        pass
    clean_up(arguments)


def clean_up(arguments: ReaperArguments) -> None:
    """End what is left of the run, in the order of a clean stop, each with a bound."""
    if arguments.ready_file is not None:
        forget_ready_file(Path(arguments.ready_file), arguments.database_url)
    # Ours follow the lifeline themselves; the second step is for those that do not.
    end_processes(lambda: processes_of_run(arguments.run_id), [(None, 0.5), (signal.SIGTERM, 10.5), (signal.SIGKILL, 5)])
    if arguments.redis is not None:
        socket = Path(arguments.redis)
        end_processes(lambda: redis_processes(socket), [(signal.SIGTERM, 5), (signal.SIGKILL, 5)])
    if arguments.postgres is not None:
        data = Path(arguments.postgres)
        end_processes(lambda: postgres_processes(data), [(signal.SIGINT, 20), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)])
    discard([Path(path) for path in arguments.remove])


def forget_ready_file(path: Path, database_url: str) -> None:
    """Delete the ready file of a run, unless a later run has by now written its own there."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads(path.read_text("utf-8")).get("database_url") == database_url:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
