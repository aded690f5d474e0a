"""A sandbox for one test file: for tests that kill its processes, trace it, restart it, or read what it prints."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.harness.supervised import end
from tests.harness.waiting import until
from tests.harness.world import Stack

_FREE_PORTS = ("--port", "0", "--ipn-port", "0")


def start_sandbox(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> tuple["subprocess.Popen[bytes]", Stack]:
    """Run `psp up` with these arguments and wait until it is ready. Return its process, and what its ready file says.

    It prints to `up.log` in the folder. `env` is its environment; None means this process's. Without a --port, the ports are
    free ones. Raises AssertionError with what it printed if it does not start.
    """
    ready, output = folder / "ready.json", folder / "up.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "sandbox.cli.main", "up", *_FREE_PORTS, *arguments, "--ready-file", str(ready)]
    with output.open("ab") as log:
        process = subprocess.Popen(command, env=dict(os.environ if env is None else env), stdout=log, stderr=log)
    try:
        until(lambda: ready.exists() or process.poll() is not None, seconds=300)
        assert ready.exists(), f"the sandbox did not start:\n{output.read_text()}"
        return process, Stack(**json.loads(ready.read_text()))
    except BaseException:
        end(process)
        raise


@contextmanager
def own_sandbox(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[bytes]", Stack]]:
    """Run a sandbox for the block; see `start_sandbox`."""
    process, stack = start_sandbox(folder, *arguments, env=env)
    try:
        yield process, stack
    finally:
        end(process)
