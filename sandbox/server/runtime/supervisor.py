"""The supervisor: starts the stores, migrations, seeds and processes, keeps them running, and stops them in order."""

import contextlib
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from sandbox.server.runtime.child import Child, Process, ProcessSpec, describe_exit, last_lines, rotate, spawn
from sandbox.server.runtime.environment import child_environment, store_environment
from sandbox.server.runtime.forking import CAN_FORK, module_of, preload
from sandbox.server.runtime.lifeline import LIFELINE_FD, Lifeline
from sandbox.server.runtime.listening_sockets import Probe, http_url, listen_all
from sandbox.server.runtime.open_files import require_open_files
from sandbox.server.runtime.options import Options, run_module
from sandbox.server.runtime.postgres import Postgres
from sandbox.server.runtime.process_start import UP_FILE
from sandbox.server.runtime.ready import Ready, SeedKeys, prepare_ready_file, read_seed_keys, write_ready_file
from sandbox.server.runtime.reaper import ReaperArguments, delete_ready_file
from sandbox.server.runtime.redis_server import RedisServer
from sandbox.server.runtime.run_directories import (
    RunDirectories,
    StartError,
    delete_trees,
    empty_metrics,
    lock_data,
    open_directories,
    require_disk_space,
)
from sandbox.server.runtime.signals import Signals, StopRequested
from sandbox.server.runtime.user_command import UserCommand

_START_SECONDS = 180.0
"""A start took up to 84 seconds on a busy machine. If a process dies, the start fails without waiting for this limit."""
_STEP_SECONDS = 300.0
_MAX_EARLY_EXITS = 6
_CHECK_SECONDS = 0.5


class Supervisor:
    """One run of the sandbox. When `run` returns or raises, none of its processes is left running."""

    def __init__(self, options: Options, say: Callable[[str], None], on_ready: Callable[[Ready], None]) -> None:
        self._options = options
        self._say = say
        self._on_ready = on_ready
        self._signals = Signals()
        self._handle_signals = self._signals.check
        """Raises StopRequested for a signal or, once a user's command runs, forwards the signal to it."""
        self._lifeline = Lifeline()
        self._run_id = secrets.token_hex(8)
        self._groups: list[list[Child]] = [[], [], [], []]
        """Children in the order in which they are stopped: API, workers, Redis, PostgreSQL."""
        self._reaper: Child | None = None
        self._step: Process | None = None
        self._probe: Probe | None = None
        self._sockets: list[socket.socket] = []
        self._directories: RunDirectories | None = None
        self._echo: Child | None = None
        self._is_preloaded = False
        self._lock: int | None = None
        self._env: dict[str, str] = {}
        self._store_env: dict[str, str] = {}

    def run(self, user_command: UserCommand | None = None) -> str:
        """Start everything, watch it until asked to stop, stop it, and return the reason of the stop.

        If given, the command starts once everything is ready; when the command ends, the run stops. Call this in the main
        thread. Raises StartError.
        """
        with self._signals:
            try:
                ready = self._start()
                self._on_ready(ready)
                if user_command is not None:
                    user_command.start(ready)
                    self._handle_signals = lambda: user_command.forward(self._signals)
                while user_command is None or user_command.running:
                    self._watch()
                return "the command has ended"
            except StopRequested as request:
                return str(request)
            finally:
                if user_command is not None:
                    user_command.end()
                self._stop()

    # Starting.

    def _start(self) -> Ready:
        options = self._options
        if options.ready_file is not None:
            prepare_ready_file(options.ready_file)
        require_open_files()
        embedded = not os.environ.get("DATABASE_URL", "").strip()
        directories = self._directories = open_directories(options.data, embedded)
        require_disk_space(directories)
        self._lock = lock_data(directories, self._pause)
        # Not before: until a killed run has released the lock, its API may still have the port.
        self._sockets = listen_all(options.host, {"--port": options.port, "--ipn-port": options.ipn_port})
        port, ipn_port = (int(server_socket.getsockname()[1]) for server_socket in self._sockets)
        empty_metrics(directories)
        if directories.notice:
            self._say(directories.notice)
        postgres = Postgres(directories) if embedded else None
        redis = None if os.environ.get("REDIS_URL", "").strip() else RedisServer(directories)
        self._env = child_environment(
            directories,
            postgres.url if postgres else None,
            redis.url if redis else None,
            options.host,
            port,
            ipn_port,
        )
        self._store_env = store_environment()
        self._env |= {"SANDBOX_RUN_ID": self._run_id, LIFELINE_FD: str(self._lifeline.reader)}
        for name in ("reaper", "redis", "postgres", "initdb", "migrate", "seeds"):
            rotate(directories.logs / f"{name}.log")
        if options.verbose:
            self._start_echo(directories.logs)
        self._start_reaper(postgres, redis)
        self._start_stores(postgres, redis)
        self._run_step("migrate", options.programs.migrate)
        self._start_workers()  # they start while the seeds run, so they add no time
        keys = SeedKeys()
        scenarios = options.scenarios
        if options.seed:
            keys = read_seed_keys(self._run_step("seeds", [*options.programs.seeds, *([str(scenarios)] if scenarios else [])]))
        self._start_api()
        self._await_processes(port)
        ready = Ready(
            api_url=http_url(options.host, port),
            ipn_url=http_url(options.host, ipn_port),
            console_url=http_url(options.host, port) + "/console",
            admin_key=self._env["SANDBOX_ADMIN_KEY"],
            database_url=self._env["DATABASE_URL"],
            redis_url=self._env["REDIS_URL"],
            keys=keys,
        )
        if options.ready_file is not None:
            write_ready_file(options.ready_file, ready)
        return ready

    def _start_reaper(self, postgres: Postgres | None, redis: RedisServer | None) -> None:
        assert self._directories is not None
        assert self._lock is not None
        ready_file = self._options.ready_file
        arguments = ReaperArguments(
            lifeline=self._lifeline.reader,
            run_id=self._run_id,
            postgres=str(postgres.data) if postgres else None,
            redis=str(redis.socket) if redis else None,
            ready_file=str(ready_file.absolute()) if ready_file else None,
            database_url=self._env["DATABASE_URL"],
            remove=[str(path) for path in self._directories.remove],
        )
        env = {key: value for key, value in self._env.items() if key not in ("SANDBOX_RUN_ID", LIFELINE_FD)}
        command = ProcessSpec(
            "reaper", arguments.argv(), env, self._log("reaper"), (self._lifeline.reader, self._lock), cwd=Path("/")
        )
        self._reaper = Child(command, lambda child: True)
        self._reaper.start()

    def _start_echo(self, logs: Path) -> None:
        reader = self._lifeline.reader
        argv = [*run_module("sandbox.server.runtime.log_echo"), str(logs), str(reader)]
        command = ProcessSpec("echo", argv, self._env, self._log("echo"), (reader,), stdout=2)
        self._echo = Child(command, lambda child: True)
        self._echo.start()

    def _preload(self) -> None:
        """Import the sandbox's programs once, before the first is forked. Called while a store starts, to use that time."""
        if CAN_FORK and not self._is_preloaded:
            self._is_preloaded = True
            programs = self._options.programs
            modules = map(module_of, (programs.api, programs.worker, programs.migrate, programs.seeds))
            preload(filter(None, modules), self._env, self._handle_signals)
            self._renew_reaper()

    def _renew_reaper(self) -> None:
        """Replace the reaper by one that shares the memory of the preloaded programs, 15 MB less than the first one needs.

        The first one guards the stores while the programs are imported.
        """
        assert self._reaper is not None
        before, self._reaper = self._reaper, Child(self._reaper.command, lambda child: True)
        self._reaper.start()
        before.destroy()

    def _start_stores(self, postgres: Postgres | None, redis: RedisServer | None) -> None:
        if redis is not None:
            command = ProcessSpec(
                "redis", redis.argv(), self._store_env, self._log("redis"), cwd=Path("/"), stop_seconds=5, dies_with_parent=True
            )
            self._launch(2, Child(command, lambda child: redis.is_ready()))
        if postgres is not None:
            user = postgres.user

            def step(name: str, argv: Sequence[str], stdin: str) -> str:
                command = ProcessSpec(
                    name, argv, self._store_env, self._log(name), user=user, cwd=Path("/"), dies_with_parent=True
                )
                return self._finish_step(command, stdin)

            postgres.prepare(step)
            command = ProcessSpec(
                "postgres",
                postgres.argv(),
                self._store_env,
                self._log("postgres"),
                user=user,
                cwd=Path("/"),
                stop_signal=signal.SIGINT,  # a fast shutdown: PostgreSQL ends all connections and writes a checkpoint
                stop_seconds=30,
                kill_signal=signal.SIGQUIT,
                dies_with_parent=True,
            )
            self._launch(3, Child(command, lambda child: child.pid is not None and postgres.is_ready(child.pid)))
        self._preload()
        stores = self._groups[2] + self._groups[3]
        self._await("the stores", lambda: all(child.is_up() for child in stores))
        for child in stores:
            child.was_up = True

    def _start_api(self) -> None:
        options = self._options
        for number in range(1, options.api_processes + 1):
            name = f"api-{number}" if options.api_processes > 1 else "api"
            self._launch(0, self._process(name, options.programs.api, self._sockets))

    def _start_workers(self) -> None:
        options = self._options
        for number in range(1, options.workers + 1):
            name = f"worker-{number}" if options.workers > 1 else "worker"
            self._launch(1, self._process(name, options.programs.worker))

    def _process(self, name: str, argv: Sequence[str], sockets: Sequence[socket.socket] = ()) -> Child:
        log = self._log(name)
        rotate(log)
        env, fds = dict(self._env), [self._lifeline.reader]
        if sockets:
            numbers = [server_socket.fileno() for server_socket in sockets]
            env["SANDBOX_LISTEN_FD"] = ",".join(map(str, numbers))
            fds += numbers
            # It is also probed through its port.
            return Child(ProcessSpec(name, argv, env, log, tuple(fds)), lambda child: True)
        assert self._directories is not None
        up_file = self._directories.run / f"{name}.up"
        up_file.unlink(missing_ok=True)
        env[UP_FILE] = str(up_file)
        return Child(ProcessSpec(name, argv, env, log, tuple(fds)), lambda child: child.reports_up(up_file))

    def _await_processes(self, port: int) -> None:
        api = self._probe = Probe(self._options.host, port, "/health/ready")
        children = self._groups[0] + self._groups[1]
        try:
            self._await(
                "the API",
                lambda: api.succeeded() and all(child.is_up() for child in children),
                lambda: f" (GET /health/ready: {api.last_result})",
            )
        finally:
            api.close()
        for child in children:
            child.was_up = True

    def _log(self, name: str) -> Path:
        assert self._directories is not None
        return self._directories.logs / f"{name}.log"

    def _launch(self, group: int, child: Child) -> None:
        self._groups[group].append(child)
        child.start()

    # Waiting and watching.

    def _pause(self, seconds: float) -> None:
        self._signals.wait(seconds)
        self._handle_signals()

    def _watch(self, max_seconds: float = _CHECK_SECONDS) -> None:
        """Wait up to `max_seconds` seconds for an event, then handle signals and restart dead children.

        Raises StopRequested, or StartError if a child that was never up keeps dying.
        """
        children = self._children()
        now = time.monotonic()
        due = [child.restart_at - now for child in children if child.restart_at is not None]
        self._pause(min([max_seconds, *due]))
        for child in children:
            if not child.check():
                continue
            if not child.was_up and child.deaths >= _MAX_EARLY_EXITS:
                raise StartError(f"{child.name} does not start.{self._end_of_log(child)}")
            if child.was_up:
                self._say(f"{child.name} ended ({describe_exit(child.exit_status)}); restarting it.")

    def _children(self) -> list[Child]:
        return [*chain.from_iterable(self._groups), *([self._reaper] if self._reaper else [])]

    def _await(self, what: str, done: Callable[[], bool], detail: Callable[[], str] = lambda: "") -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not done():
            if time.monotonic() > deadline:
                late = [child for child in self._children() if not child.is_up()] or self._groups[0]
                logs = "".join(self._end_of_log(child) for child in late)
                raise StartError(f"{what} did not become ready within {_START_SECONDS:.0f} seconds{detail()}.{logs}")
            self._watch(0.02)

    def _end_of_log(self, child: Child) -> str:
        return f"\nThe end of {child.command.log}:\n{last_lines(child.command.log) or '(empty)'}"

    def _run_step(self, name: str, argv: Sequence[str]) -> str:
        return self._finish_step(ProcessSpec(name, argv, self._env, self._log(name), (self._lifeline.reader,)), "")

    def _finish_step(self, command: ProcessSpec, stdin: str) -> str:
        """Run a command to its end and return its standard output, while watching the stores.

        If the run is asked to stop, the wait ends and `_stop` kills the process. Raises StartError if the command fails.
        """
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output:
            source.write(stdin.encode())
            source.seek(0)
            self._step = spawn(command, source.fileno(), output.fileno())
            self._preload()
            deadline = time.monotonic() + _STEP_SECONDS
            while self._step.poll() is None:
                if time.monotonic() > deadline:
                    raise StartError(f"{command.name} took longer than {_STEP_SECONDS:.0f} seconds.")
                self._watch()
            status, self._step = self._step.returncode, None
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        if status != 0:
            end = last_lines(command.log) or text[-2000:]
            raise StartError(f"{command.name} failed ({describe_exit(status)}). The end of {command.log}:\n{end}")
        return text

    # Stopping.

    def _stop(self) -> None:
        """End everything in order. Afterwards, only the run's data remains."""
        if self._options.ready_file is not None and self._env:
            delete_ready_file(self._options.ready_file, self._env["DATABASE_URL"])
        if self._probe is not None:
            self._probe.close()
        if self._step is not None and self._step.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._step.pid, signal.SIGKILL)
            self._step.wait()
        for group in self._groups:
            self._stop_group(group)
        for server_socket in self._sockets:
            server_socket.close()
        if self._echo is not None:
            self._echo.send_stop()
            self._wait_until_ended([self._echo], 2.0)
            self._echo.destroy()
        if self._directories is not None:
            delete_trees(self._directories.remove)
        self._lifeline.cut()
        if self._reaper is not None:
            self._wait_until_ended([self._reaper], 20.0)
            self._reaper.destroy()
        if self._lock is not None:
            os.close(self._lock)

    def _stop_group(self, group: list[Child]) -> None:
        if not self._signals.force_stop:
            for child in group:
                child.send_stop()
            self._wait_until_ended(group, max((child.command.stop_seconds for child in group), default=0))
        for child in group:
            if not child.has_ended():
                child.send_kill()
        deadline = time.monotonic() + 3
        while not all(child.has_ended() for child in group) and time.monotonic() < deadline:
            self._signals.wait(0.05)
        for child in group:
            child.destroy()

    def _wait_until_ended(self, group: list[Child], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not all(child.has_ended() for child in group):
            if time.monotonic() > deadline or self._signals.force_stop:
                return
            self._signals.wait(0.1)
