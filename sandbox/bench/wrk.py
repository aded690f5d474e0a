"""Drives creates over HTTP with wrk."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.bench.stack import BenchError, Merchant, Stack

_FOLDER = Path(__file__).parent
_TIMEOUT: Final = 60
"""Seconds after which an answer counts as missing: one that a machine which stood still made late is late."""


@dataclass(frozen=True, slots=True)
class WrkRun:
    """What wrk measured. `refused` are answers above 399, `broken` connections and timeouts."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int

    @property
    def rps(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def find_wrk() -> str:
    """Where wrk is. Raises BenchError with how to get it."""
    found = shutil.which("wrk")
    if found is None:
        raise BenchError("wrk is not installed; get it with: apt-get install wrk (Debian, Ubuntu) or brew install wrk.")
    return found


def run_wrk(
    stack: Stack,
    merchants: Sequence[Merchant],
    connections: int,
    seconds: int,
    script: str = "create.lua",
    path: str = "/",
) -> WrkRun:
    """Do what a script says, which is to create payouts of the merchants in turn, as fast as so many connections can.

    Raises BenchError if any answer said no.
    """
    threads = max(1, min(2, connections, os.cpu_count() or 1))
    argv = [find_wrk(), "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s", "-s", str(_FOLDER / script)]
    argv += ["--timeout", f"{_TIMEOUT}s"]
    # The keys go through the environment: everybody can read the command line of a process.
    keys = ",".join(merchant.api_key for merchant in merchants)
    env = os.environ | {"PSP_BENCH_API_KEYS": keys, "PSP_BENCH_RUN": secrets.token_hex(4)}
    try:
        limit = seconds + 2 * _TIMEOUT
        ended = subprocess.run(  # noqa: S603 (a fixed command)
            [*argv, f"{stack.api_url}{path}"],
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"wrk could not be run: {error}") from error
    run = parse_wrk(ended.stdout)
    if run is None:
        raise BenchError(f"wrk failed: {(ended.stderr or ended.stdout)[-2000:]}")
    if run.refused or run.broken or not run.requests:
        raise BenchError(
            f"Of {run.requests} requests over HTTP {run.refused} were refused and {run.broken} broke off; "
            "a figure with errors in it would mean nothing."
        )
    return run


def parse_wrk(output: str) -> WrkRun | None:
    """Read the line that create.lua prints at the end; None if there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                return WrkRun(**json.loads(line))
            except (ValueError, TypeError):
                return None
    return None
