"""CPU time, waits and memory of a sandbox's processes by kind, and the speed of the machine."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

import psutil  # type: ignore[import-untyped]  # the package has no types

_MODULES = {"serve": "api", "with_api": "api", "worker": "worker", "ipn": "ipn"}
KINDS = ("api", "worker", "postgres", "valkey", "ipn", "supervisor")
"""The kinds of processes. `postgres` and `valkey` include their children, `supervisor` includes the reaper."""
TOTAL = "total"


def loop_seconds() -> float:
    """Return how many seconds it takes now to sum a million squares in plain Python."""
    started = time.perf_counter()
    sum(number * number for number in range(1_000_000))
    return time.perf_counter() - started


class CpuMeter:
    """Measures the CPU time of a process and its descendants during a `with` block.

    `pid` is the supervisor's. If it is None, the sandbox's processes are not visible, and nothing is measured.
    """

    def __init__(self, pid: int | None) -> None:
        self.seconds: dict[str, float] = {}
        """User plus system time by kind of process, and `total`."""
        self.switches: dict[str, float] = {}
        """How often the main threads waited, by kind of process."""
        self._pid = pid
        self._before: Mapping[str, float] = {}
        self._switches_before: Mapping[str, float] = {}

    def __enter__(self) -> "CpuMeter":
        self._before = cpu_seconds(self._pid)
        self._switches_before = _switches(self._pid)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        after = cpu_seconds(self._pid)
        self.seconds = {kind: after[kind] - self._before.get(kind, 0.0) for kind in KINDS if kind in after}
        if self.seconds:
            self.seconds[TOTAL] = sum(self.seconds.values())
        after = _switches(self._pid)
        self.switches = {kind: after[kind] - self._switches_before.get(kind, 0.0) for kind in KINDS if kind in after}

    def switches_per(self, count: int) -> dict[str, float]:
        """Return the waits per unit, by kind of process. Empty if nothing was measured."""
        return {kind: switches / count for kind, switches in self.switches.items()} if count else {}

    def micros_per(self, count: int) -> dict[str, float]:
        """Return the CPU microseconds per unit, by kind of process. Empty if nothing was measured."""
        return {kind: seconds * 1e6 / count for kind, seconds in self.seconds.items()} if count else {}


def cpu_seconds(pid: int | None) -> dict[str, float]:
    """Return the user plus system seconds of a process and its descendants, by kind of process.

    The time of a child that has ended counts for the parent that reaped it.
    """
    by_kind: dict[str, float] = {}
    for process in _tree(pid):
        # The process may end at any point. Its time then counts for its parent.
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            kind = kind_of(process.name(), process.cmdline())
            # Only Linux reports the time of children that have ended.
            ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            by_kind[kind] = by_kind.get(kind, 0.0) + times.user + times.system + ended
    return by_kind


def _switches(pid: int | None) -> dict[str, float]:
    """Return how often the main threads of a process and its descendants have waited, by kind of process."""
    by_kind: dict[str, float] = {}
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error):
            kind = kind_of(process.name(), process.cmdline())
            by_kind[kind] = by_kind.get(kind, 0.0) + process.num_ctx_switches().voluntary
    return by_kind


def memory_megabytes(pid: int | None) -> float:
    """Return the memory of a process and its descendants; memory that processes share counts once."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error, AttributeError):  # only Linux reports the proportional set size
            total += process.memory_full_info().pss
    return total / 1e6


def pids_of(pid: int | None, kind: str) -> list[int]:
    """Return the pids of a process and its descendants that are of a kind, one of KINDS."""
    found = []
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error):
            if kind_of(process.name(), process.cmdline()) == kind:
                found.append(process.pid)
    return found


@contextlib.contextmanager
def held(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes with SIGSTOP for the duration of the `with` block. Processes that have ended are ignored."""

    def send(number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    send(signal.SIGSTOP)
    try:
        yield
    finally:
        send(signal.SIGCONT)


def kind_of(name: str, command: list[str]) -> str:
    """Return the kind of a sandbox process, one of KINDS, from its name and command line."""
    if name.startswith("postgres"):
        return "postgres"
    if name.startswith(("valkey", "redis")):
        return "valkey"
    module = command[command.index("-m") + 1 :][:1] if "-m" in command else []
    return _MODULES.get(module[0].rpartition(".")[2], "supervisor") if module else "supervisor"


def find_supervisor(port: int) -> int | None:
    """Return the pid of the supervisor whose API listens on a port of this machine; None if it is not visible."""
    listening: dict[int, int] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            connections = process.net_connections("tcp")
            if any(connection.status == psutil.CONN_LISTEN and connection.laddr.port == port for connection in connections):
                listening[process.pid] = process.ppid()
    # The supervisor opens the listening socket, and the API processes inherit it. A container's port has no such processes.
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
