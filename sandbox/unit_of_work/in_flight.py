"""Which idempotency keys this process is executing at the moment.

It tells a second request with a key that comes too early, nothing more: that a key has its effect once is held by the
merchant's lock, for requests of other processes as well, which wait for it and repeat the first one's answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sandbox.domain.errors import Problem
from sandbox.domain.unit import IdempotencyKey

_held: Final[set[tuple[str, str]]] = set()


def reserve(merchant_id: str, key: IdempotencyKey | None) -> None:
    """Hold a merchant's key until it is released, unless its requests wait for each other.

    Raises IDEMPOTENCY_KEY_IN_FLIGHT if it is held.
    """
    if key is None or key.waits:
        return
    if (merchant_id, key.key) in _held:
        raise Problem("IDEMPOTENCY_KEY_IN_FLIGHT")
    _held.add((merchant_id, key.key))


def release(merchant_id: str, key: IdempotencyKey | None) -> None:
    """Let go of a key that was held."""
    if key is not None and not key.waits:
        _held.discard((merchant_id, key.key))


@contextmanager
def in_flight(merchant_id: str, key: IdempotencyKey | None) -> Iterator[None]:
    """Hold a key for a block that executes its request."""
    reserve(merchant_id, key)
    try:
        yield
    finally:
        release(merchant_id, key)
