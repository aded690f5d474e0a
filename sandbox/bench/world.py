"""`psp bench world`: how long it takes to make, reset, put away and put back one merchant's world while another is busy."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from sandbox.bench.database import Database
from sandbox.bench.machine import Machine, look
from sandbox.bench.stack import BenchError, Merchant, Stack, ask, check_audit, create_merchant

_BATCH = 500
_WAIT_SECONDS = 600.0
_STEPS = ("create", "snapshot", "restore", "reset")


@dataclass(frozen=True, slots=True)
class WorldResult:
    """Milliseconds of each round, as a client sees them, by what was done."""

    machine: Machine
    payouts: int
    rows: int
    """Rows that a snapshot had."""
    rounds: Mapping[str, Sequence[float]]
    others: int
    """Creates of the other merchant meanwhile, all of them accepted."""
    cpu_us: Mapping[str, float]
    """CPU microseconds of the whole run per payout that either merchant created, by kind of process."""

    def ms(self, step: str) -> float:
        """The median."""
        return median(self.rounds[step])


@dataclass(frozen=True, slots=True)
class WorldBench:
    """`rounds` times: a merchant is made, given `payouts` settled payouts, put away, put back and reset."""

    stack: Stack
    payouts: int
    rounds: int
    clients: int
    progress: Callable[[str, int], None] = field(default=lambda what, done: None)

    @property
    def steps(self) -> int:
        """How much `progress` will be told of in all."""
        return self.rounds

    def run(self) -> WorldResult:
        """Measure. Raises BenchError when anything fails, or anything of the other merchant is not as it should be."""
        database = Database(self.stack.database_url)
        machine = look(database.version)
        other = create_merchant(self.stack, "bench world, the other")
        load = _Load(self.stack, other, self.clients)
        found: dict[str, list[float]] = {step: [] for step in _STEPS}
        rows = 0
        with self.stack.cpu() as cpu:
            with load:
                for number in range(1, self.rounds + 1):
                    self.progress(f"round {number}", 0)
                    rows = self._round(found)
                    self.progress(f"round {number}", 1)
            database.drain([other])
        check_audit(self.stack, other)
        stored = database.count_payouts([other])
        if load.errors or stored != load.accepted:
            raise BenchError(f"The other merchant has {stored} payouts of {load.accepted}; {load.errors[:3]}")
        cpu_us = cpu.micros_per(self.payouts * self.rounds + load.accepted)
        return WorldResult(machine, self.payouts, rows, found, load.accepted, cpu_us)

    def _round(self, found: dict[str, list[float]]) -> int:
        began = time.perf_counter()
        merchant = create_merchant(self.stack, "bench world")
        found["create"].append(_since(began))
        _fill(self.stack, merchant, self.payouts)

        def timed(step: str, path: str) -> Any:
            began = time.perf_counter()
            answer = _post(self.stack, merchant, f"/sandbox/v1/{path}", {})
            found[step].append(_since(began))
            return answer

        snapshot = timed("snapshot", "snapshots")
        timed("restore", f"snapshots/{snapshot['id']}/restore")
        check_audit(self.stack, merchant)
        timed("reset", "reset")
        check_audit(self.stack, merchant)
        ask(self.stack, "DELETE", f"/sandbox/v1/merchants/{merchant.merchant_id}", {"X-ADMIN-KEY": self.stack.admin_key}, None)
        rows: int = snapshot["rows"]
        return rows


class _Load:
    """Creates of another merchant, one after the other for each client, until the block ends."""

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
    """Make payouts, and wait until all of them are paid."""
    for begin in range(0, payouts, _BATCH):
        batch = [_payout() for _ in range(min(_BATCH, payouts - begin))]
        _post(stack, merchant, "/api/v1/payouts/batch", {"payouts": batch})
    deadline = time.monotonic() + _WAIT_SECONDS
    while not _post(stack, merchant, "/sandbox/v1/drain", {})["drained"]:
        if time.monotonic() > deadline:
            raise BenchError("The payouts of the measurement were not settled in time.")


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
    return ask(stack, "POST", path, {"X-API-KEY": merchant.api_key, "X-IDEMPOTENCY-KEY": secrets.token_hex(8)}, body)


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
