"""What follows each commit of a unit, wherever in this process it was made: counting it, and telling who listens."""

import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.metrics import STATUSES

listeners: Final[list[Callable[[UnitOfWork], None]]] = []
"""Told of each unit right after its commit. They may not block; what they raise changes nothing any more."""

_log = structlog.get_logger()


def committed(unit: UnitOfWork) -> None:
    """Count what a committed unit did, for the metrics, say what it could not do, and tell the listeners of it."""
    for payout_id, error in unit.impossible.items():
        _log.error("step_impossible", merchant_id=unit.merchant_id, payout_id=payout_id, error=error)
    for event in unit.events:
        if event.to_status is not None:
            STATUSES.labels(event.to_status).inc()
    for listener in listeners:
        with contextlib.suppress(Exception):
            listener(unit)
