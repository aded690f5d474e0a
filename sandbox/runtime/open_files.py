"""Raise the limit of open files, which would otherwise limit the number of connections."""

import contextlib
import resource
from typing import Final

WANTED: Final = 8192
"""Enough for all concurrent webhook calls, as many idle connections, and everything else."""


def raise_limit_of_open_files() -> None:
    """Raise the soft limit to WANTED, or to the hard limit if that is lower. Many systems default to 1024 or less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit that no call reports
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
