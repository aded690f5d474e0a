"""The options of a run."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def run_module(name: str) -> tuple[str, ...]:
    """Return the command that runs a module of this project in an environment of `child_environment`."""
    # -P: do not import a `worker` or `seeds` package from the current directory instead of this project's.
    return (sys.executable, "-P", "-m", name)


@dataclass(frozen=True, slots=True)
class Programs:
    """The commands of the sandbox's processes."""

    api: Sequence[str] = run_module("ipn.with_api")
    worker: Sequence[str] = run_module("worker")
    migrate: Sequence[str] = run_module("sandbox.infrastructure.db.migrate")
    seeds: Sequence[str] = run_module("seeds")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run. If `data` is None, the run is ephemeral."""

    data: Path | None = Path(".psp")
    host: str = "127.0.0.1"
    port: int = 8000
    ipn_port: int = 8001
    workers: int = 1
    api_processes: int = 1
    seed: bool = True
    ready_file: Path | None = None
    scenarios: Path | None = None
    """A TOML file with scenarios for the demo merchant."""
    verbose: bool = False
    programs: Programs = Programs()
