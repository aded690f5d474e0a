"""`psp mcp`: a Model Context Protocol server, so that agents can use the sandbox."""

import contextlib
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sandbox.cli.client import DEFAULT_URL, ApiKey, ReadyFile, Url, from_ready_file, host_of, merchant_key, show
from sandbox.cli.failures import refused
from sandbox.infrastructure.settings import LOOPBACK_HOSTS


def mcp(
    http: Annotated[
        str | None,
        typer.Option(
            "--http",
            metavar="[HOST:]PORT",
            help="Serve streamable HTTP on this loopback address instead of standard input and output. Each client sends its "
            "own key, as Authorization: Bearer or X-API-KEY; the keys of this command are not used. 0 is any free port.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    admin_key: Annotated[
        str | None,
        typer.Option(
            "--admin-key",
            envvar="PSP_ADMIN_KEY",
            help="The operator's key. Only with it can agents create, list and delete worlds.",
        ),
    ] = None,
    ready_file: ReadyFile = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            exists=True,
            file_okay=False,
            help="The only folder that tools write to. Default: the working directory, unless that is the root directory.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the URL of --http, and failures, as JSON.")] = False,
) -> None:
    """Serve the Model Context Protocol, so that agents can use the sandbox: create payouts, advance the clock, inject faults.

    Agents have exactly the rights of the key. The server calls the sandbox's API with it, and never shows it.
    """
    if find_spec("mcp") is None:
        raise refused("psp mcp needs the extra mcp: pip install 'psp-sandbox[mcp]'", "NOT_INSTALLED")
    # Loading these takes a second, and nothing else needs them.
    from sandbox.cli.mcp_server.access import Keys
    from sandbox.cli.mcp_server.server import PATH, run_http, run_stdio

    if http is None:
        url, key = merchant_key(url, api_key, ready_file)
        with contextlib.suppress(KeyboardInterrupt):
            run_stdio(url, Keys(key, admin_key or None), _folder(folder))
        return
    url, _ = from_ready_file(ready_file, url, "api_url", None, "api_key")
    host_of(url)
    host, port = _address(http)
    server_socket = _listen(host, port)
    at = f"http://{f'[{host}]' if ':' in host else host}:{server_socket.getsockname()[1]}{PATH}"
    show({"url": at}, as_json=as_json, text=f"Listening on {at}. Press Ctrl-C to stop.")
    # On SIGTERM, the server ends in order and then raises the signal again. Without this handler, the process would fail.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    with contextlib.suppress(KeyboardInterrupt):
        run_http(url, server_socket)


def _folder(given: Path | None) -> Path | None:
    """Return the folder that tools may write to. Agents that start programs in / did not choose a folder."""
    if given is not None:
        return given.resolve()
    current = Path.cwd()
    return None if current == Path(current.anchor) else current


def _address(text: str) -> tuple[str, int]:
    """Return the host and the port of [HOST:]PORT. Raises BadParameter."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if host not in LOOPBACK_HOSTS:
        raise typer.BadParameter(f"--http listens on loopback only: {', '.join(sorted(LOOPBACK_HOSTS))}.")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise typer.BadParameter(f"{text} is not [HOST:]PORT.")
    return host, int(port)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises Failure."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise refused(f"psp mcp cannot listen on {host}:{port}: {error.strerror}.", "NOT_STARTED") from None
