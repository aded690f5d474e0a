"""`psp run`: a sandbox for as long as one command takes."""

import shutil
import signal
import sys
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
    from sandbox.runtime.supervisor import Options

NOT_STARTED: Final = 125
"""The exit code when there was no sandbox to run the command in; a command seldom ends with it, as with docker run."""


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
) -> None:
    """Start a sandbox, run a command in it, stop the sandbox, and end with the command's exit code.

    The command finds PSP_URL, PSP_API_KEY, PSP_ADMIN_KEY, PSP_IPN_URL and PSP_IPN_SECRET in its environment. Signals
    are passed on to it. Ports are free ones unless given, so several runs do not meet.

    Exit code: the command's; 128 + n if signal n ended it; 125: the sandbox could not start; 126: the command cannot be
    executed; 127: it was not found; 2: usage error.
    """
    options = read_options(ephemeral, data, host, port, ipn_port, workers, api_processes, ready_file, scenarios, verbose)
    raise typer.Exit(run_command(options, command))


def run_command(options: "Options", command: list[str]) -> int:
    """Run the command in a sandbox and give the exit code. Standard output is the command's alone."""
    from sandbox.runtime.guest import NOT_FOUND, Guest, GuestError
    from sandbox.runtime.run_directories import StartError
    from sandbox.runtime.supervisor import Supervisor

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    if shutil.which(command[0]) is None and "/" not in command[0]:
        say(f"psp run: {command[0]}: command not found")
        return NOT_FOUND
    guest = Guest(command)
    try:
        reason = Supervisor(options, say, lambda ready: None).run(guest)
    except GuestError as error:
        say(f"psp run: {error}")
        return error.exit_code
    except StartError as error:
        say(f"psp run: {error}")
        return NOT_STARTED
    if guest.exit_code is not None:
        return guest.exit_code
    # It was asked to end before the command began.
    return 128 + signal.Signals.__members__.get(reason, signal.SIGTERM)
