"""What time it is for the receivers of webhooks."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from psp_sandbox.testing.one_clock.clock_file import ClockFile

ReceiverTime = Callable[[str], datetime]
"""Merchant's id → the time of its receivers' wall clock."""


def hosts_time(_: str) -> datetime:
    """Return the host's time, which receivers share unless an application follows the merchant's clock."""
    return datetime.now(UTC)


def receiver_time(clock_file: Path | None) -> ReceiverTime:
    """Return what tells the receivers' time, if the application of one merchant has the clocks of this file."""
    if clock_file is None:
        return hosts_time
    clock = ClockFile(clock_file)
    return lambda merchant_id: clock.now if merchant_id == clock.merchant_id else hosts_time(merchant_id)
