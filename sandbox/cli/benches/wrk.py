"""Generate HTTP load with wrk."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.cli.benches.stack import BenchError, Merchant, Stack

_FOLDER = Path(__file__).parent
_TIMEOUT: Final = 60
"""Seconds until wrk stops waiting for a response. Long, so that a pause of the machine counts as latency, not as an error."""


@dataclass(frozen=True, slots=True)
class WrkRun:
    """The figures of one wrk run. `refused` counts statuses above 399; `broken` counts lost connections and timeouts."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int

    @property
    def rps(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds


def find_wrk() -> str:
    """Return the path of wrk. Raises BenchError, which says how to install it."""
    found = shutil.which("wrk")
    if found is None:
        raise BenchError("wrk is not installed; run: apt-get install wrk (Debian, Ubuntu) or brew install wrk (macOS).")
    return found


def run_wrk(
    stack: Stack,
    merchants: Sequence[Merchant],
    connections: int,
    seconds: int,
    script: str = "create.lua",
    paths: Sequence[str] = ("/",),
) -> WrkRun:
    """Run a wrk script over `connections` connections for `seconds`.

    By default, it creates payouts for the merchants in rotation. `reads.lua` reads `paths` in turn, with the key of the only
    merchant. Raises BenchError if a request is refused or gets no response.
    """
    threads = max(1, min(2, connections, os.cpu_count() or 1))
    argv = [find_wrk(), "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s", "-s", str(_FOLDER / script)]
    argv += ["--timeout", f"{_TIMEOUT}s"]
    # Pass the keys through the environment, because every user can read the command line of a process.
    keys = ",".join(merchant.api_key for merchant in merchants)
    env = os.environ | {"PSP_BENCH_API_KEYS": keys, "PSP_BENCH_RUN": secrets.token_hex(4)}
    env |= {"PSP_BENCH_PATHS": " ".join(paths), "PSP_BENCH_COMMON": str(_FOLDER / "common.lua")}
    try:
        limit = seconds + 2 * _TIMEOUT
        ended = subprocess.run(  # noqa: S603 (a fixed command)
            [*argv, f"{stack.api_url}/"],
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"wrk failed to run: {error}") from error
    run = parse_wrk(ended.stdout)
    if run is None:
        raise BenchError(f"wrk failed: {(ended.stderr or ended.stdout)[-2000:]}")
    if run.refused or run.broken or not run.requests:
        raise BenchError(
            f"Of {run.requests} requests over HTTP, {run.refused} were refused and {run.broken} got no response, so the "
            "figures are not valid."
        )
    return run


def parse_wrk(output: str) -> WrkRun | None:
    """Parse the line that the scripts print at the end; None if there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                return WrkRun(**json.loads(line))
            except (ValueError, TypeError):
                return None
    return None
