"""`psp run`: start a sandbox, run one command with it, and stop it."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sandbox.cli.up import (
    ApiProcesses,
    Data,
    Ephemeral,
    Host,
    IpnPort,
    Port,
    ReadyFile,
    Scenarios,
    Verbose,
    Workers,
    read_options,
)

if TYPE_CHECKING:
    from sandbox.server.runtime.options import Options
    from sandbox.server.runtime.ready import Ready

NOT_STARTED: Final = 125
"""The exit code if the sandbox could not start. Few commands use it themselves; docker run uses it in the same way."""


def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.", metavar="COMMAND")],
    ephemeral: Ephemeral = False,
    data: Data = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
    ipn_port: IpnPort = 0,
    workers: Workers = 1,
    api_processes: ApiProcesses = 1,
    ready_file: ReadyFile = None,
    scenarios: Scenarios = None,
    verbose: Verbose = False,
    one_clock: Annotated[
        bool, typer.Option("--one-clock", help="Let the command's clocks follow the clock of the merchant of PSP_API_KEY.")
    ] = False,
) -> None:
    """Start a sandbox, run a command with it, stop the sandbox, and exit with the command's exit code.

    The command gets PSP_URL, PSP_API_KEY, PSP_ADMIN_KEY, PSP_IPN_URL and PSP_IPN_SECRET in its environment. Signals are
    forwarded to it. By default the sandbox uses free ports, so that several runs do not conflict.

    Exit code: the command's own; 128 + n if signal n ended it; 125 if the sandbox could not start; 126 if the command
    cannot be executed; 127 if it was not found; 2 for a usage error.
    """
    options = read_options(ephemeral, data, host, port, ipn_port, workers, api_processes, ready_file, scenarios, verbose)
    raise typer.Exit(run_command(options, command, one_clock=one_clock))


def run_command(options: "Options", command: list[str], *, one_clock: bool = False) -> int:
    """Run a command with a sandbox, and return the exit code. Nothing but the command writes to standard output."""
    from psp_sandbox.testing.one_clock.library import OneClockError
    from sandbox.server.runtime.run_directories import StartError
    from sandbox.server.runtime.supervisor import Supervisor
    from sandbox.server.runtime.user_command import NOT_EXECUTABLE, NOT_FOUND, UserCommand, UserCommandError

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    if shutil.which(command[0]) is None and "/" not in command[0]:
        say(f"psp run: {command[0]}: command not found")
        return NOT_FOUND
    try:
        with _one_clock(command) if one_clock else nullcontext() as environment:
            user_command = UserCommand(command, environment)
            reason = Supervisor(options, say, lambda ready: None).run(user_command)
    except OneClockError as error:
        say(f"psp run: {error}")
        return NOT_EXECUTABLE
    except UserCommandError as error:
        say(f"psp run: {error}")
        return error.exit_code
    except StartError as error:
        say(f"psp run: {error}")
        return NOT_STARTED
    if user_command.exit_code is not None:
        return user_command.exit_code
    # The run was asked to end before the command started.
    return 128 + signal.Signals.__members__.get(reason, signal.SIGTERM)


@contextmanager
def _one_clock(command: list[str]) -> Iterator[Callable[["Ready"], Mapping[str, str]]]:
    """Yield what returns the variables that let the command follow the merchant's clock. Raises OneClockError."""
    from psp_sandbox.client import Client
    from psp_sandbox.testing.one_clock.clocks import Clocks
    from psp_sandbox.testing.one_clock.library import FOLDER_VARIABLE, require_following

    require_following(command[0])
    with tempfile.TemporaryDirectory(prefix="psp-one-clock-") as folder:
        clocks = Clocks(Path(folder))
        os.environ[FOLDER_VARIABLE] = folder

        def follow(ready: "Ready") -> Mapping[str, str]:
            assert ready.keys.merchant_id is not None
            assert ready.keys.api_key is not None
            with Client(ready.api_url, api_key=ready.keys.api_key) as client:
                now = client.clock.get().now
            return clocks.environment(clocks.follow(ready.keys.merchant_id, ready.keys.api_key, now))

        yield follow
