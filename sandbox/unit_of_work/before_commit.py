"""What is done last in a transaction that writes a unit of work, before its COMMIT."""

from collections.abc import Awaitable, Callable
from typing import Final

from sandbox.domain.unit import UnitOfWork

OBSERVERS: Final[list[Callable[[UnitOfWork], Awaitable[None]]]] = []
"""Told of each unit when all of it is written. The merchant's lock waits for them: they are quick, and never raise."""


async def before_commit(unit: UnitOfWork) -> None:
    """Tell the observers of a unit that is about to be committed."""
    for observer in OBSERVERS:
        await observer(unit)
