"""Copies of an empty database. Copying one takes a tenth of the CPU time that initdb needs to make one.

A template counts only until the machine restarts: its files are not forced to the disk, so a power cut may have damaged them.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sandbox.server.runtime.run_directories import StartError, SystemUser, hand_over

MAX_TEMPLATES: Final = 3
"""How many are kept, of 40 MB each: those of the versions of PostgreSQL that were used last."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""Only Linux has it. Elsewhere there are no templates."""

RunCommand = Callable[[Sequence[str]], object]
"""Runs a command to its end as PostgreSQL's user. Raises StartError."""


def templates_folder(user: SystemUser | None, shared: Path) -> Path:
    """Return the folder of the templates: the user's own, or that of the account in `shared` that root runs PostgreSQL as."""
    if user is not None:
        return shared / f"databases-{user.uid}"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "psp-sandbox" / "databases"


class DatabaseTemplates:
    """The templates in a folder that only PostgreSQL's user and root can enter. Without such a folder there are none."""

    def __init__(self, folder: Path, user: SystemUser | None, made_by: Sequence[str]) -> None:
        """`made_by` are the commands that make the database. Their programs' times count too."""
        self._folder = folder
        self._user = user
        self._path = folder / name if (name := _name(made_by)) is not None and self._is_usable() else None

    def copy_to(self, data: Path, run: RunCommand) -> bool:
        """Copy the template into an empty folder. Return False if there is none; what was copied is then to be deleted."""
        if self._path is None or not self._path.exists():
            return False
        try:
            os.utime(self._path)  # first, so that no other start deletes it as the one that was used least lately
            run(_copy(self._path, data))
        except (StartError, OSError):  # another start has deleted it, or the disk is full
            return False
        return True

    def add(self, data: Path, run: RunCommand) -> None:
        """Make a template of a database that no server uses. Does nothing if that is not possible."""
        if self._path is None:
            return
        fresh = self._folder / f"new-{secrets.token_hex(8)}"
        try:
            hand_over(fresh, self._user)
            run(_copy(data, fresh))
            fresh.rename(self._path)  # only now may others copy it: it is complete
        except (StartError, OSError):  # the disk is full, or another start was faster
            shutil.rmtree(fresh, ignore_errors=True)
        self._delete_oldest()

    def _is_usable(self) -> bool:
        uid = os.geteuid() if self._user is None else self._user.uid
        try:
            if not self._folder.exists():
                self._folder.parent.mkdir(mode=0o711 if self._user else 0o700, parents=True, exist_ok=True)
                hand_over(self._folder, self._user)
            status = self._folder.lstat()
        except OSError:
            return False
        # Anyone who can write there could plant a database that runs their code as this user.
        return status.st_uid == uid and status.st_mode & 0o777 == 0o700 and os.access(self._folder, os.W_OK)

    def _delete_oldest(self) -> None:
        with contextlib.suppress(OSError):
            by_use = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in by_use[MAX_TEMPLATES:]:
                # Whoever copies it must fail, and not take what is left of it for the whole.
                deleted = path.rename(path.with_name(f"old-{secrets.token_hex(8)}"))
                shutil.rmtree(deleted, ignore_errors=True)


def _name(made_by: Sequence[str]) -> str | None:
    try:
        programs = [(part, (status := os.stat(part)).st_mtime_ns, status.st_size) for part in made_by if os.path.isabs(part)]
        text = repr((_BOOT_ID.read_text("ascii"), programs, made_by))
    except OSError:
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _copy(source: Path, target: Path) -> Sequence[str]:
    return ("cp", "-Rp", f"{source}/.", str(target))
