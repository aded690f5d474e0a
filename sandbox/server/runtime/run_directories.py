"""The directories of a run, the system user of the embedded PostgreSQL, and the lock on a data directory."""

import base64
import fcntl
import hashlib
import os
import pwd
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # the package has no types

from sandbox.infrastructure.disk import is_full

_SHARED_HOME = Path("/var/lib/psp-sandbox")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+\Z")
_MAX_SOCKET_PATH_LENGTH = 100  # the kernel's limit is 107 bytes on Linux and 103 on macOS
_LOCK_SECONDS = 45.0
LOCK_NAME = "psp.lock"
"""The file in a data directory that a run's supervisor and reaper keep locked. It holds the supervisor's pid."""


class StartError(Exception):
    """A start failed. The message is for the user, with the end of a log if there is one."""


@dataclass(frozen=True, slots=True)
class SystemUser:
    """The account that PostgreSQL runs as when we are root, because it refuses to run as root."""

    name: str
    uid: int
    gid: int


@dataclass(slots=True)
class RunDirectories:
    """The directories of one run. Those in `remove` are deleted when the run ends."""

    data: Path
    home: Path
    """The parent of PostgreSQL's data: `data`, or another directory if PostgreSQL's system user cannot reach that."""
    run: Path
    """Sockets. The path is short enough for a Unix socket and needs no quoting in a DSN."""
    user: SystemUser | None
    ephemeral: bool
    notice: str | None = None
    remove: list[Path] = field(default_factory=list)

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def metrics(self) -> Path:
        return self.data / "metrics"


def store_user() -> SystemUser | None:
    """Return the account to run PostgreSQL as; None unless we are root.

    Creates `pgserver` if it does not exist. If that fails (a read-only /etc, no useradd), falls back to `postgres` or
    `nobody`. Raises StartError if none of these exists.
    """
    if os.geteuid() != 0:
        return None
    deadline = time.monotonic() + 5
    while (entry := _account("pgserver")) is None and time.monotonic() < deadline:
        try:
            # With two concurrent first starts, one useradd fails: /etc/passwd is locked, or the name exists already.
            completed = subprocess.run(
                ["useradd", "-s", "/bin/false", "pgserver"],  # noqa: S607 (its directory differs between systems)
                check=False,
                capture_output=True,
            )
        except OSError:
            break
        if completed.returncode != 0:
            time.sleep(0.1)
    entry = entry or _account("postgres") or _account("nobody")
    if entry is None:
        raise StartError(
            "PostgreSQL cannot run as root, and no system user for it could be created or found; "
            "create one with: useradd -s /bin/false pgserver"
        )
    return SystemUser(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _owner_of(database: Path, user: SystemUser) -> SystemUser:
    """Return the owner of an existing data directory, so that it still belongs to that user after root has used it."""
    try:
        entry = database.stat()
    except FileNotFoundError:
        return user
    return user if entry.st_uid in (0, user.uid) else SystemUser(str(entry.st_uid), entry.st_uid, entry.st_gid)


def _account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def reachable(path: Path, user: SystemUser | None) -> bool:
    """Return whether `user` can enter the directory `path`. Runs a check as that user, so ACLs count too."""
    if user is None:
        return os.access(path, os.X_OK)
    completed = subprocess.run(  # noqa: S603 (a fixed command)
        ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)],
        user=user.uid,
        group=user.gid,
        extra_groups=[],
        cwd="/",
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return completed.returncode == 0


def open_directories(data: Path | None, embedded_postgres: bool) -> RunDirectories:
    """Choose and create the directories of a run. If `data` is None, the run is ephemeral.

    Existing directories keep their permissions. Raises StartError if a directory cannot be used.
    """
    user = store_user() if embedded_postgres else None
    remove: list[Path] = []
    if data is None:
        base = Path(tempfile.mkdtemp(prefix="psp-")).resolve()
        remove.append(base)
        if user is not None:
            base.chmod(0o711)  # PostgreSQL's user must be able to enter it, but not to list it
    else:
        base = data.expanduser().resolve()
        _make(base, 0o711 if user is not None else 0o700)
        if user is not None:
            user = _owner_of(base / "postgres", user)
    directories = RunDirectories(base, base, base / "run", user, data is None, remove=remove)
    try:
        if not os.access(base, os.R_OK | os.W_OK | os.X_OK):
            raise StartError(f"The data directory {base} is not writable; choose another one with --data.")
        if not reachable(base, user):
            _move_home(directories)
        _choose_run(directories)
        _make(directories.logs, 0o700)
    except BaseException:
        delete_trees(directories.remove)
        raise
    return directories


def require_disk_space(directories: RunDirectories) -> None:
    """Raise StartError if a disk is full. PostgreSQL would not start, and its message would not say why."""
    if is_full(directories.home) or is_full(directories.data):
        raise StartError(f"The disk of {directories.data} is full: free some space on it, or choose another one with --data.")


def empty_metrics(directories: RunDirectories) -> None:
    """Delete the counters of earlier processes. Call it while holding the lock: another run may be writing there."""
    shutil.rmtree(directories.metrics, ignore_errors=True)
    _make(directories.metrics, 0o700)


def _make(path: Path, mode: int) -> None:
    if path.is_dir():
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        _give_to_owner(path)
    except OSError as error:
        raise StartError(
            f"The directory {path} cannot be created ({error.strerror}); choose another one with --data."
        ) from error


def _give_to_owner(path: Path) -> None:
    """As root, give `path` to the owner of its directory, so that the owner's next run can use it without root."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _move_home(directories: RunDirectories) -> None:
    assert directories.user is not None
    name = hashlib.sha256(os.fsencode(directories.data)).hexdigest()[:16]
    if directories.ephemeral:
        home = Path(tempfile.mkdtemp(prefix="psp-", dir="/tmp")).resolve()
        directories.remove.append(home)
    else:
        home = _SHARED_HOME / name
        _make(_SHARED_HOME, 0o711)
        home.mkdir(exist_ok=True)
    home.chmod(0o711)
    if not reachable(home, directories.user):
        raise StartError(
            f"PostgreSQL's system user {directories.user.name!r} can reach neither {directories.data} nor {home}; "
            "choose a directory that it can enter with --data, or run psp as an ordinary user."
        )
    directories.home = home
    directories.notice = (
        f"PostgreSQL keeps its data in {home}, because its system user {directories.user.name!r} "
        f"cannot enter {directories.data}."
    )


def _choose_run(directories: RunDirectories) -> None:
    run = directories.home / "run"
    longest_path = run / "pg" / ".s.PGSQL.5432.lock"
    if len(os.fsencode(longest_path)) > _MAX_SOCKET_PATH_LENGTH or not _PLAIN_PATH.match(str(run)):
        run = Path(tempfile.mkdtemp(prefix="psp-run-", dir="/tmp"))
        directories.remove.append(run)
    _make(run, 0o711)
    run.chmod(0o711 if directories.user is not None else 0o700)
    directories.run = run


def hand_over(path: Path, user: SystemUser | None) -> None:
    """Make `path` a directory that only the store's user and root can enter."""
    path.mkdir(exist_ok=True)
    if user is not None:
        os.chown(path, user.uid, user.gid)
    path.chmod(0o700)


def delete_trees(paths: list[Path]) -> None:
    """Delete directory trees, ignoring errors."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def lock_data(directories: RunDirectories, pause: Callable[[float], None]) -> int:
    """Lock the data directory for this run, and return the lock's descriptor.

    The lock is released when the last copy of the descriptor closes. The reaper of a killed run holds a copy until that
    run's stores have ended. So a start right after a SIGKILL waits, calling `pause`, and the old PostgreSQL never still runs.
    Raises StartError immediately if the lock's owner is alive.
    """
    path = directories.data / LOCK_NAME
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"{path} cannot be opened ({error.strerror}); choose another directory with --data.") from error
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
                if (owner.isdigit() and process_lives(int(owner))) or time.monotonic() > deadline:
                    raise StartError(
                        f"The data directory {directories.data} is in use by another sandbox (process {owner or 'unknown'}). "
                        f"Stop it with `psp down --data {shlex.quote(str(directories.data))}`, or choose another directory "
                        "with --data."
                    ) from None
                pause(0.1)
        _give_to_owner(path)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def process_lives(pid: int) -> bool:
    """Return whether a process runs. A zombie does not: in a container it may never be reaped."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def secret_key(data: Path) -> str:
    """Return the secret key of this data directory (32 bytes, URL-safe base64). Create it once, with mode 0600.

    The key is written under a temporary name and linked into place, so that a crash leaves no empty file, and two concurrent
    starts get the same key.
    """
    path = data / "secret.key"
    if not path.exists():
        fresh = data / f"secret.key.{os.getpid()}"
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, base64.urlsafe_b64encode(os.urandom(32)))
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        except OSError:
            os.replace(fresh, path)  # the file system has no hard links
        finally:
            fresh.unlink(missing_ok=True)
        _give_to_owner(path)
    return path.read_text("ascii").strip()
