"""Describe the machine and the versions of a measurement. Without them, a figure means nothing."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from sandbox.cli.benches.cpu import loop_seconds
from sandbox.cli.benches.revision import ROOT, git
from sandbox.cli.benches.stack import BenchError


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine, its load and speed, and the versions."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    postgresql: str
    python: str
    commit: str
    load: float
    """The load average of the minute before. Other running processes make every figure worse."""
    loop_s: float
    """The machine's speed: the seconds that summing a million squares in plain Python took just before the bench."""

    @property
    def line(self) -> str:
        """A summary in one line."""
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.1f} GiB; {self.kernel}; PostgreSQL {self.postgresql}; "
            f"Python {self.python}; commit {self.commit}; load before: {self.load:.1f}; "
            f"summing a million squares in Python: {self.loop_s:.3f} s"
        )


def describe_machine(postgresql: str) -> Machine:
    """Return a description of this machine. `postgresql` is the server's version."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        postgresql=postgresql,
        python=platform.python_version(),
        commit=_commit(),
        load=round(os.getloadavg()[0], 1),
        loop_s=round(loop_seconds(), 4),
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Return the commit of this code, with `+` appended if files have changed since; `unknown` outside a checkout."""
    try:
        # An installed package may lie inside another repository. Then git does not track this file, and the call fails.
        git(ROOT, "ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        return git(ROOT, "rev-parse", "--short=12", "HEAD") + ("+" if git(ROOT, "status", "--porcelain") else "")
    except BenchError:
        return "unknown"
