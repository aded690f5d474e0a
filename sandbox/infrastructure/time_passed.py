"""How much of a merchant's time was passed by hand, kept in Redis beside what counts that time there: caches and limits.

Redis counts real time by itself; what a moved clock adds to it stands under one key of the merchant, in milliseconds. It
is lost with what it counts for.
"""


def passed_key(merchant_id: str) -> str:
    """Where it stands."""
    return f"psp:time-passed:{merchant_id}"
