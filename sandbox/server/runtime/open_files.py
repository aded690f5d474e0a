"""Raise the limit of open files, which would otherwise limit the number of connections."""

import contextlib
import resource
from typing import Final

from sandbox.server.runtime.run_directories import StartError

TARGET: Final = 8192
"""Enough for the maximum number of webhook calls, the same number of idle connections, and all other files."""


MINIMUM: Final = 512
"""The minimum for a process. With fewer, the API could accept hardly any connections besides those to the stores."""


def require_open_files() -> int:
    """Raise the soft limit, and return it. Raises StartError if it is lower than MINIMUM."""
    raise_open_file_limit()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MINIMUM:
        raise StartError(
            f"A process may open at most {soft} files here (ulimit -n), but the sandbox needs {MINIMUM}. Raise the hard limit, "
            "for example in /etc/security/limits.conf or with docker run --ulimit nofile=1024."
        )
    return soft


def raise_open_file_limit() -> None:
    """Raise the soft limit to TARGET, or to the hard limit if that is lower. Many systems default to 1024 or less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = TARGET if hard == resource.RLIM_INFINITY else min(TARGET, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit that no call reports
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
