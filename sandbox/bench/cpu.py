"""CPU time of a sandbox's processes, by what they are, and the pace of the machine."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from types import TracebackType

import psutil  # type: ignore[import-untyped]  # it comes without types

_MODULES = {"serve": "api", "worker": "worker", "ipn": "ipn"}
KINDS = ("api", "worker", "postgres", "valkey", "ipn", "supervisor")
"""The kinds of processes: `postgres` and `valkey` with all their children, `supervisor` with its guardian."""
TOTAL = "total"


def loop_seconds() -> float:
    """Seconds that a plain Python sum of a million squares takes just now."""
    began = time.perf_counter()
    sum(number * number for number in range(1_000_000))
    return time.perf_counter() - began


class CpuMeter:
    """Measures the CPU time of a process and its descendants between entering and leaving the `with` block.

    `pid` is the supervisor's; None if the sandbox's processes cannot be seen, and then nothing is measured.
    """

    def __init__(self, pid: int | None) -> None:
        self.seconds: dict[str, float] = {}
        """User plus system time by kind of process, and `total`."""
        self._pid = pid
        self._before: Mapping[str, float] = {}

    def __enter__(self) -> "CpuMeter":
        self._before = cpu_seconds(self._pid)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        after = cpu_seconds(self._pid)
        self.seconds = {kind: after[kind] - self._before.get(kind, 0.0) for kind in KINDS if kind in after}
        if self.seconds:
            self.seconds[TOTAL] = sum(self.seconds.values())

    def micros_per(self, count: int) -> dict[str, float]:
        """CPU microseconds for each of `count` units, by kind of process. Empty if nothing was measured."""
        return {kind: seconds * 1e6 / count for kind, seconds in self.seconds.items()} if count else {}


def cpu_seconds(pid: int | None) -> dict[str, float]:
    """User plus system seconds that a process and its descendants have used, by kind of process.

    A child that has ended counts with the parent that collected it.
    """
    found: dict[str, float] = {}
    for process in _tree(pid):
        # It may end at any point of this. Its parent then has its time.
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            kind = kind_of(process.name(), process.cmdline())
            # Only Linux counts the children that have ended.
            ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            found[kind] = found.get(kind, 0.0) + times.user + times.system + ended
    return found


def kind_of(name: str, command: list[str]) -> str:
    """What a process of a sandbox is, by its name and command line: one of KINDS."""
    if name.startswith("postgres"):
        return "postgres"
    if name.startswith(("valkey", "redis")):
        return "valkey"
    module = command[command.index("-m") + 1 :][:1] if "-m" in command else []
    return _MODULES.get(module[0].rpartition(".")[2], "supervisor") if module else "supervisor"


def find_supervisor(port: int) -> int | None:
    """The process that supervises the API on a port of this machine; None if it cannot be seen from here."""
    listening: dict[int, int] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if any(found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in process.net_connections("tcp")):
                listening[process.pid] = process.ppid()
    # The supervisor listens for all API processes, which inherit its socket. A container's port has no such processes.
    for pid in (pid for pid, parent in listening.items() if parent not in listening):
        if "api" in cpu_seconds(pid):
            return pid
    return None


def _tree(pid: int | None) -> Iterator[psutil.Process]:
    if pid is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        yield from root.children(recursive=True)
        yield root
