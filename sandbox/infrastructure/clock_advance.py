"""The total time by which a merchant's clock was advanced, for caches and limits in Redis that expire by the merchant's time.

Redis knows only real time. The total of all advances, in milliseconds, is stored under one key per merchant, in the same Redis
as those caches and limits, so if Redis loses its data, they are lost together.
"""


def clock_advance_key(merchant_id: str) -> str:
    """Return the key of the merchant's total."""
    return f"psp:time-passed:{merchant_id}"
