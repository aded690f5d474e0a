"""`psp bench world`: measure create, snapshot, restore and reset of one merchant's world while another merchant is busy."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from sandbox.bench.database import Database
from sandbox.bench.machine import Machine, describe_machine
from sandbox.bench.stack import BenchError, Merchant, Stack, call, check_audit, create_merchant

_BATCH = 500
_WAIT_SECONDS = 600.0
_STEPS = ("create", "snapshot", "restore", "reset")


@dataclass(frozen=True, slots=True)
class WorldResult:
    """The result of the bench. `rounds` has the milliseconds of each round by step, as a client sees them."""

    machine: Machine
    payouts: int
    rows: int
    """Rows of a snapshot."""
    rounds: Mapping[str, Sequence[float]]
    others: int
    """Payouts that the other merchant created during the rounds. All were accepted."""
    cpu_us: Mapping[str, float]
    """CPU microseconds of the whole run per payout of both merchants, by kind of process."""

    def ms(self, step: str) -> float:
        """Return the median of a step, in milliseconds."""
        return median(self.rounds[step])


@dataclass(frozen=True, slots=True)
class WorldBench:
    """The options of the bench: `rounds` times, create a merchant with `payouts` payouts, then save, restore and reset it."""

    stack: Stack
    payouts: int
    rounds: int
    clients: int
    progress: Callable[[str, int], None] = field(default=lambda what, done: None)

    @property
    def steps(self) -> int:
        """The total number of steps that `progress` counts."""
        return self.rounds

    def run(self) -> WorldResult:
        """Measure. Raises BenchError if anything fails, including for the other merchant."""
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        other = create_merchant(self.stack, "bench world, the other")
        load = _Load(self.stack, other, self.clients)
        rounds: dict[str, list[float]] = {step: [] for step in _STEPS}
        rows = 0
        with self.stack.cpu() as cpu:
            with load:
                for number in range(1, self.rounds + 1):
                    self.progress(f"round {number}", 0)
                    rows = self._round(rounds)
                    self.progress(f"round {number}", 1)
            database.drain([other])
        check_audit(self.stack, other)
        stored = database.count_payouts([other])
        if load.errors or stored != load.accepted:
            raise BenchError(f"The other merchant has {stored} of {load.accepted} payouts; errors: {load.errors[:3]}")
        cpu_us = cpu.micros_per(self.payouts * self.rounds + load.accepted)
        return WorldResult(machine, self.payouts, rows, rounds, load.accepted, cpu_us)

    def _round(self, rounds: dict[str, list[float]]) -> int:
        """Time each step once, and return the number of rows in the snapshot."""
        started = time.perf_counter()
        merchant = create_merchant(self.stack, "bench world")
        rounds["create"].append(_ms_since(started))
        _fill(self.stack, merchant, self.payouts)

        def timed(step: str, path: str) -> Any:
            started = time.perf_counter()
            found = _post(self.stack, merchant, f"/sandbox/v1/{path}", {})
            rounds[step].append(_ms_since(started))
            return found

        snapshot = timed("snapshot", "snapshots")
        timed("restore", f"snapshots/{snapshot['id']}/restore")
        check_audit(self.stack, merchant)
        timed("reset", "reset")
        check_audit(self.stack, merchant)
        call(self.stack, "DELETE", f"/sandbox/v1/merchants/{merchant.merchant_id}", {"X-ADMIN-KEY": self.stack.admin_key}, None)
        rows: int = snapshot["rows"]
        return rows


class _Load:
    """Creates payouts for another merchant during a `with` block. Each client sends one request at a time."""

    def __init__(self, stack: Stack, merchant: Merchant, clients: int) -> None:
        self.accepted = 0
        self.errors: list[str] = []
        self._stack = stack
        self._merchant = merchant
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._create, daemon=True) for _ in range(clients)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_WAIT_SECONDS)

    def _create(self) -> None:
        while not self._stop.is_set():
            try:
                _post(self._stack, self._merchant, "/api/v1/payouts", _payout())
            except BenchError as error:
                self.errors.append(str(error))
                return
            with self._lock:
                self.accepted += 1


def _fill(stack: Stack, merchant: Merchant, payouts: int) -> None:
    """Create payouts, and wait until all are paid."""
    for start in range(0, payouts, _BATCH):
        batch = [_payout() for _ in range(min(_BATCH, payouts - start))]
        _post(stack, merchant, "/api/v1/payouts/batch", {"payouts": batch})
    deadline = time.monotonic() + _WAIT_SECONDS
    while not _post(stack, merchant, "/sandbox/v1/drain", {})["drained"]:
        if time.monotonic() > deadline:
            raise BenchError(f"The payouts were not settled within {_WAIT_SECONDS:.0f} seconds.")


def _payout() -> dict[str, str]:
    return {
        "merchant_reference": secrets.token_hex(12),
        "amount": "1.00",
        "dest_type": "BANK",
        "bank_code": "HBL",
        "account_number": "12345678900001",
        "account_title": "AYESHA KHAN",
    }


def _post(stack: Stack, merchant: Merchant, path: str, body: object) -> Any:
    return call(stack, "POST", path, {"X-API-KEY": merchant.api_key, "X-IDEMPOTENCY-KEY": secrets.token_hex(8)}, body)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
