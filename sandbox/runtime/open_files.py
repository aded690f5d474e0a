"""Lets this process hold as many connections as its work allows it."""

import contextlib
import resource
from typing import Final

WANTED: Final = 8192
"""Files and sockets: the calls to webhook endpoints under way, as many idle connections, and all others."""


def raise_limit_of_open_files() -> None:
    """Raise the soft limit, 1024 or less on many systems, towards WANTED. Where that is not allowed it stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has another limit above, which no call tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
