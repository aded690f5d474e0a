"""`psp bench world`: measure create, snapshot, restore and reset of one merchant's world while another merchant is busy."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from sandbox.cli.benches.database import Database
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.result import COUNT, MS, Figure, Progress, Result, cpu_figures
from sandbox.cli.benches.stack import (
    BenchError,
    Merchant,
    Stack,
    check_audit,
    create_merchant,
    create_payouts,
    delete_merchant,
    payout_body,
    post,
)

_BATCH = 500
_WAIT_SECONDS = 600.0
_STEPS = ("create", "snapshot", "restore", "reset")


@dataclass(frozen=True, slots=True)
class WorldBench:
    """The options of the bench: `rounds` times, create a merchant with `payouts` payouts, then save, restore and reset it."""

    stack: Stack
    payouts: int
    rounds: int
    clients: int
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if anything fails, including for the other merchant."""
        self.progress.expect(self.rounds)
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        other = create_merchant(self.stack, "bench world, the other")
        load = _Load(self.stack, other, self.clients)
        rounds: dict[str, list[float]] = {step: [] for step in _STEPS}
        rows = 0
        with self.stack.cpu() as cpu:
            with load:
                for number in range(1, self.rounds + 1):
                    self.progress(f"round {number}")
                    rows = self._round(rounds)
                    self.progress(f"round {number}", 1)
            database.drain([other])
        check_audit(self.stack, other)
        stored = database.count_payouts([other])
        if load.errors or stored != load.accepted:
            raise BenchError(f"The other merchant has {stored} of {load.accepted} payouts; errors: {load.errors[:3]}")
        cpu_us = cpu.micros_per(self.payouts * self.rounds + load.accepted)
        counts = {"payouts": self.payouts, "rows": rows, "others": load.accepted}
        figures = [Figure(name, [count], COUNT) for name, count in counts.items()]
        figures += [Figure(f"{step}_ms", times, MS) for step, times in rounds.items()]
        return Result(
            machine=machine,
            figures=figures + cpu_figures("payout", [cpu_us]),
            notes=[
                "`rows` are those of a snapshot, `others` the payouts that the other merchant created. None was lost. The "
                "audits of both merchants are clean."
            ],
        )

    def _round(self, rounds: dict[str, list[float]]) -> int:
        """Time each step once, and return the number of rows in the snapshot."""
        started = time.perf_counter()
        merchant = create_merchant(self.stack, "bench world")
        rounds["create"].append(_ms_since(started))
        _fill(self.stack, merchant, self.payouts)

        def timed(step: str, path: str) -> Any:
            started = time.perf_counter()
            found = post(self.stack, merchant, f"/sandbox/v1/{path}", {})
            rounds[step].append(_ms_since(started))
            return found

        snapshot = timed("snapshot", "snapshots")
        timed("restore", f"snapshots/{snapshot['id']}/restore")
        check_audit(self.stack, merchant)
        timed("reset", "reset")
        check_audit(self.stack, merchant)
        delete_merchant(self.stack, merchant)
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
                post(self._stack, self._merchant, "/api/v1/payouts", payout_body())
            except BenchError as error:
                self.errors.append(str(error))
                return
            with self._lock:
                self.accepted += 1


def _fill(stack: Stack, merchant: Merchant, payouts: int) -> None:
    """Create payouts, and wait until all are paid."""
    create_payouts(stack, merchant, payouts, batch=_BATCH)
    deadline = time.monotonic() + _WAIT_SECONDS
    while not post(stack, merchant, "/sandbox/v1/drain", {})["drained"]:
        if time.monotonic() > deadline:
            raise BenchError(f"The payouts were not settled within {_WAIT_SECONDS:.0f} seconds.")


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
