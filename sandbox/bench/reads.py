"""`psp bench reads`: measure `GET /payouts/{id}` and `GET /balance`."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from sandbox.bench.create import medians
from sandbox.bench.database import Database
from sandbox.bench.machine import Machine, describe_machine
from sandbox.bench.stack import BenchError, Merchant, Stack, call, check_audit, create_merchant
from sandbox.bench.wrk import WrkRun, find_wrk, run_wrk

READS: Final = ("payout", "balance")
_PAYOUTS: Final = 500
"""Number of payouts to read in turn. More would not fit into the environment variable that passes them to wrk."""


@dataclass(frozen=True, slots=True)
class ReadsResult:
    """The result of the bench: the runs of each kind of read, and the CPU microseconds per read by kind of process."""

    machine: Machine
    runs: Mapping[str, Sequence[WrkRun]]
    cpu_us: Mapping[str, Mapping[str, float]]

    def rps(self, read: str) -> float:
        """Return the median of the reads per second."""
        return median(run.rps for run in self.runs[read])

    def p99_ms(self, read: str) -> float:
        """Return the median of the 99th percentiles, in milliseconds."""
        return median(run.p99_ms for run in self.runs[read])


@dataclass(frozen=True, slots=True)
class ReadsBench:
    """The options of the bench: both kinds of reads alternately, `seconds` each, `rounds` times."""

    stack: Stack
    seconds: int
    rounds: int
    connections: int
    progress: Callable[[str, int], None] = field(default=lambda what, done: None)

    @property
    def steps(self) -> int:
        """The total number of steps that `progress` counts."""
        return len(READS) * self.rounds * self.seconds

    def run(self) -> ReadsResult:
        """Measure. Raises BenchError if anything fails."""
        find_wrk()
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        merchant = create_merchant(self.stack, "bench reads")
        paths = {"payout": [f"/api/v1/payouts/{id_}" for id_ in _create_payouts(self.stack, merchant)]}
        paths["balance"] = ["/api/v1/balance"]
        database.drain([merchant])
        runs: dict[str, list[WrkRun]] = {read: [] for read in READS}
        cpu_us: dict[str, list[Mapping[str, float]]] = {read: [] for read in READS}
        for number in range(1, self.rounds + 1):
            for read in READS:
                self.progress(f"round {number}: {read}", 0)
                with self.stack.cpu() as cpu:
                    run = run_wrk(self.stack, [merchant], self.connections, self.seconds, "reads.lua", paths=paths[read])
                runs[read].append(run)
                cpu_us[read].append(cpu.micros_per(run.requests))
                self.progress(f"round {number}: {read}", self.seconds)
        check_audit(self.stack, merchant)
        return ReadsResult(machine, runs, {read: medians(cpu_us[read]) for read in READS})


def _create_payouts(stack: Stack, merchant: Merchant) -> list[str]:
    """Create payouts, and return their ids. Raises BenchError."""
    payouts = [
        {
            "merchant_reference": secrets.token_hex(12),
            "amount": "1.00",
            "dest_type": "BANK",
            "bank_code": "HBL",
            "account_number": "12345678900001",
            "account_title": "AYESHA KHAN",
        }
        for _ in range(_PAYOUTS)
    ]
    headers = {"X-API-KEY": merchant.api_key, "X-IDEMPOTENCY-KEY": secrets.token_hex(8)}
    results = call(stack, "POST", "/api/v1/payouts/batch", headers, {"payouts": payouts})["results"]
    ids = [result["payout"]["id"] for result in results if result["status"] == 201]
    if len(ids) != _PAYOUTS:
        raise BenchError(f"Only {len(ids)} of {_PAYOUTS} payouts were created: {json.dumps(results)[:500]}")
    return ids
