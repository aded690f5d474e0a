"""Notice a full disk before it does harm."""

import shutil
from pathlib import Path
from typing import Final

MIN_FREE: Final = 16 * 1024 * 1024
"""PostgreSQL extends its log in files of this size, and stops if there is no space for one."""


def is_full(folder: Path) -> bool:
    """Return whether the folder's disk has less than MIN_FREE bytes left. A disk that cannot be asked counts as not full."""
    try:
        return shutil.disk_usage(folder).free < MIN_FREE
    except OSError:
        return False
