"""The time on the wall clocks of webhook receivers."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from psp_sandbox.testing.one_clock.clock_file import clock_of

ReceiverTime = Callable[[str], datetime]
"""Merchant's id → the time of its receivers' wall clock."""


def hosts_time(_: str) -> datetime:
    """Return the host's time, which receivers share unless an application follows the merchant's clock."""
    return datetime.now(UTC)


def receiver_time(clock_folder: Path | None) -> ReceiverTime:
    """Return how to read the receivers' time. The folder has the clocks of applications that follow their merchant's."""
    if clock_folder is None:
        return hosts_time

    def time(merchant_id: str) -> datetime:
        clock = clock_of(clock_folder, merchant_id)
        return hosts_time(merchant_id) if clock is None else clock.now

    return time
