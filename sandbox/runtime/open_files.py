"""Raise the limit of open files, which would otherwise limit the number of connections."""

import contextlib
import resource
from typing import Final

TARGET: Final = 8192
"""Enough for the maximum number of webhook calls, the same number of idle connections, and all other files."""


def raise_open_file_limit() -> None:
    """Raise the soft limit to TARGET, or to the hard limit if that is lower. Many systems default to 1024 or less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = TARGET if hard == resource.RLIM_INFINITY else min(TARGET, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit that no call reports
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
