"""Prometheus metrics. With PROMETHEUS_MULTIPROC_DIR set, they cover all processes of a host."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

REQUESTS: Final = Counter("psp_requests", "HTTP requests, by method, route and status.", ("method", "route", "status"))
REQUEST_SECONDS: Final = Histogram(
    "psp_request_seconds", "Seconds from a request to its response.", ("route",),
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
)  # fmt: skip
BATCH_SIZE: Final = Histogram(
    "psp_batch_size", "Payouts in one transaction, by loop.", ("loop",), buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
)
BATCH_MERCHANTS: Final = Histogram(
    "psp_batch_merchants", "Merchants in one transaction, by loop.", ("loop",), buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
STATUSES: Final = Counter("psp_payouts", "Payouts that entered a status.", ("status",))
WORK_LAG: Final = Gauge(
    "psp_work_lag_seconds", "Seconds that the oldest due work had waited when it was claimed, by kind.", ("kind",),
    multiprocess_mode="livemax",
)  # fmt: skip
DELIVERY_SECONDS: Final = Histogram(
    "psp_delivery_seconds", "Seconds that webhook endpoints took to respond, by outcome.", ("outcome",),
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 15),
)  # fmt: skip

SALE_PAYMENTS: Final = Counter(
    "psp_sale_payments", "Attempts to pay a sale, by kind (ADVANCE, FINAL) and outcome (paid, failed).", ("kind", "outcome")
)
SALES_RUNS: Final = Counter("psp_sales_runs", "Runs that paid sales, by kind and cause (api, clock, cron).", ("kind", "cause"))
SALES_RUNS_ABORTED: Final = Counter(
    "psp_sales_runs_lost",
    "Scheduled runs of a merchant's sales that were aborted, by reason (error, unavailable).",
    ("reason",),
)

_KINDS: Final = ("counter", "gauge_livemax", "histogram")
"""The kinds of files that the library writes for the metrics above."""
_FILE_BYTES: Final = 1024 * 1024
"""More than all metrics of one kind need: their labels have few values."""


def reserve_files() -> None:
    """Reserve space for the files of this process's metrics. Raises OSError if the disk is full.

    The library maps sparse files into memory. If the disk were full when a page is first written, SIGBUS would end the process.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None or not hasattr(os, "posix_fallocate"):
        return
    for kind in _KINDS:
        with open(Path(folder) / f"{kind}_{os.getpid()}.db", "ab") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size or _FILE_BYTES)


def exposition() -> bytes:
    """Return all metrics in the Prometheus text format."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        _Collector(registry)  # type: ignore[no-untyped-call]  # the library leaves it untyped
        return generate_latest(registry)
    return generate_latest()


class _Collector(multiprocess.MultiProcessCollector):
    """Adds up the metrics of all processes, each of which keeps its own in files."""

    def collect(self) -> Any:
        return self.merge(list(_written_files(Path(self._path))), accumulate=True)  # type: ignore[no-untyped-call]  # as above


def _written_files(folder: Path) -> Iterator[str]:
    for path in folder.glob("*.db"):
        # A starting process creates a file before it fills it. If it is killed in between, the file stays empty, and the
        # library cannot read it.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size:
                yield str(path)
