"""`psp up`: start the whole sandbox, and stop it on Ctrl-C."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.failures import refused

if TYPE_CHECKING:
    from sandbox.server.runtime.options import Options
    from sandbox.server.runtime.ready import Ready


Ephemeral = Annotated[bool, typer.Option("--ephemeral", help="Use fresh data, and delete it at the end.")]
Data = Annotated[Path | None, typer.Option("--data", help="The directory for data, keys and logs.", show_default=".psp")]
Host = Annotated[str, typer.Option("--host", help="The address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The API's port; 0 uses a free one.")]
IpnPort = Annotated[int, typer.Option("--ipn-port", min=0, max=65535, help="The IPN receiver's port; 0 uses a free one.")]
Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="The number of worker processes.")]
ApiProcesses = Annotated[
    int, typer.Option("--api-processes", min=1, max=64, help="The number of API processes, which share the port.")
]
ReadyFile = Annotated[
    Path | None, typer.Option("--ready-file", help="Write URLs and keys to this JSON file when everything is ready.")
]
Scenarios = Annotated[
    Path | None, typer.Option("--scenarios", help="A TOML file with your own scenarios for the demo merchant.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Copy the logs to the terminal.")]


def up(
    ephemeral: Ephemeral = False,
    data: Data = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    ipn_port: IpnPort = 8001,
    workers: Workers = 1,
    api_processes: ApiProcesses = 1,
    ready_file: ReadyFile = None,
    no_seed: Annotated[bool, typer.Option("--no-seed", help="Do not create the demo merchants and their keys.")] = False,
    scenarios: Scenarios = None,
    verbose: Verbose = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the content of the ready file, one line of JSON, instead of the banner.")
    ] = False,
) -> None:
    """Start the sandbox: stores, API, worker and IPN receiver. Ctrl-C or `psp down` stops it.

    Use an embedded PostgreSQL and Redis unless DATABASE_URL and REDIS_URL are set. The exit code is 1 if it cannot start.
    """
    if scenarios is not None and no_seed:
        raise typer.BadParameter("--scenarios needs the demo merchant, which --no-seed does not create.")
    options = read_options(
        ephemeral, data, host, port, ipn_port, workers, api_processes, ready_file, scenarios, verbose, seed=not no_seed
    )
    run_up(options, as_json)


def read_options(
    ephemeral: bool,
    data: Path | None,
    host: str,
    port: int,
    ipn_port: int,
    workers: int,
    api_processes: int,
    ready_file: Path | None,
    scenarios: Path | None,
    verbose: bool,
    *,
    seed: bool = True,
) -> "Options":
    """Return the options of a run. Raises BadParameter if they contradict each other."""
    if ephemeral and data is not None:
        raise typer.BadParameter("Give --ephemeral or --data, not both.")
    if port and port == ipn_port:
        raise typer.BadParameter("--port and --ipn-port must differ.")
    if scenarios is not None:
        from sandbox.payouts.directory.loader import load_directory
        from sandbox.payouts.scenarios.builtin import read_rules

        try:
            read_rules(scenarios, load_directory())
        except ValueError as error:
            raise typer.BadParameter(f"--scenarios: {error}") from None
    from sandbox.server.runtime.options import Options  # here, because other commands do not need it

    return Options(
        data=None if ephemeral else data or Path(".psp"),
        host=host,
        port=port,
        ipn_port=ipn_port,
        workers=workers,
        api_processes=api_processes,
        seed=seed,
        ready_file=ready_file,
        scenarios=None if scenarios is None else scenarios.absolute(),
        verbose=verbose,
    )


def run_up(options: "Options", as_json: bool) -> None:
    """Run the sandbox until it is stopped. Print its URLs and keys, as text or JSON. Raises Failure."""
    from sandbox.server.runtime.run_directories import StartError
    from sandbox.server.runtime.supervisor import Supervisor

    def on_ready(ready: "Ready") -> None:
        _print(sys.stdout.write, (ready.to_json() if as_json else _banner(ready)) + "\n")

    def say(line: str) -> None:
        _print(sys.stderr.write, f"{line}\n")

    if not as_json:
        say("Starting ...")
    try:
        Supervisor(options, say, on_ready).run()
    except StartError as error:
        raise refused(f"psp up: {error}", "NOT_STARTED") from None
    _print(sys.stderr.write if as_json else sys.stdout.write, "stopped\n")


def _print(write: Callable[[str], int], text: str) -> None:
    """Print, ignoring errors: a closed terminal or pipe must not prevent an orderly stop."""
    try:
        write(text)
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass


def _banner(ready: "Ready") -> str:
    keys = ready.keys
    rows = [
        ("API", ready.api_url),
        ("IPN", ready.ipn_url),
        ("Console", ready.console_url),
        ("Guide", f"{ready.api_url}/docs/guide/"),
        ("Docs", f"{ready.api_url}/docs"),
        ("Merchant", keys.merchant_id),
        ("API key", keys.api_key),
        ("Member key", keys.member_api_key),
        ("Users' API key", keys.users_api_key),
        ("Admin key", ready.admin_key),
        ("Webhook secret", keys.webhook_secret),
        ("IPN secret", keys.ipn_secret),
        ("Database", ready.database_url),
        ("Redis", ready.redis_url),
    ]
    lines = ["", "PSP Sandbox is ready.", ""]
    lines += [f"  {name:<15} {value}" for name, value in rows if value]
    if keys.api_key:
        lines += ["", "Create a payout:", "", _curl(ready.api_url, keys.api_key)]
    return "\n".join([*lines, "", "Press Ctrl-C to stop.", ""])


def _curl(api_url: str, api_key: str) -> str:
    body = {
        "merchant_reference": "first-payout",
        "amount": "1500.00",
        "dest_type": "BANK",
        "bank_code": "HBL",
        "account_number": "12345678900001",
    }
    return " \\\n".join(
        [
            f"  curl -sS {api_url}/api/v1/payouts",
            f"    -H {shlex.quote('X-API-KEY: ' + api_key)}",
            "    -H 'X-IDEMPOTENCY-KEY: first-payout'",
            "    -H 'Content-Type: application/json'",
            f"    -d {shlex.quote(json.dumps(body))}",
        ]
    )
