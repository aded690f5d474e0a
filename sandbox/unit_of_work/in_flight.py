"""The idempotency keys of the requests that this process is executing. Pure.

They only serve to refuse a second request with the same key early. The merchant's lock ensures that a key takes effect only
once, also across processes, where a second request waits for the lock and returns the first one's result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sandbox.domain.errors import Problem
from sandbox.domain.unit import IdempotencyKey

_reserved: Final[set[tuple[str, str]]] = set()


def reserve(merchant_id: str, key: IdempotencyKey | None) -> None:
    """Reserve a merchant's key until it is released. Does nothing for keys whose requests wait for each other.

    Raises IDEMPOTENCY_KEY_IN_FLIGHT if the key is reserved.
    """
    if key is None or key.waits:
        return
    if (merchant_id, key.key) in _reserved:
        raise Problem("IDEMPOTENCY_KEY_IN_FLIGHT")
    _reserved.add((merchant_id, key.key))


def release(merchant_id: str, key: IdempotencyKey | None) -> None:
    """Release a reserved key."""
    if key is not None and not key.waits:
        _reserved.discard((merchant_id, key.key))


@contextmanager
def in_flight(merchant_id: str, key: IdempotencyKey | None) -> Iterator[None]:
    """Reserve a key for the block that executes its request."""
    reserve(merchant_id, key)
    try:
        yield
    finally:
        release(merchant_id, key)
