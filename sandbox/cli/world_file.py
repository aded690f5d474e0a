"""`psp world`: move a merchant's whole world in one file."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sandbox.cli.app import App
from sandbox.cli.client import AsJson, Client, Output, show, with_client, with_operator
from sandbox.cli.failures import failed_response, not_met, refused, unreachable
from sandbox.cli.options import Yes

app = App("The merchant's whole world as one file.")
_PATH: Final = "/sandbox/v1/world"
_MEDIA_TYPE: Final = "application/vnd.psp.world+json"
_SECONDS: Final = 600
"""Timeout of an export or import. A large world takes many seconds."""
_File = Annotated[str, typer.Argument(metavar="FILE", help="The bundle's file; - for standard output.")]


@app.command("export")
@with_client
def export(client: Client, file: _File) -> Output:
    """Write the merchant's world to a file, without keys and secrets."""
    with client.waiting("Exporting the world"):
        response = client.send("GET", _PATH, timeout=_SECONDS)
    if not response.is_success:
        raise failed_response(response)
    if file == "-":
        return Output(response.json(), response.text.rstrip("\n"))
    try:
        Path(file).write_bytes(response.content)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror}") from error
    bundle = response.json()
    summary = {"file": file, "bytes": len(response.content), "calls": len(bundle["journal"]["calls"]), "rows": _rows(bundle)}
    return Output(summary, f"Wrote {file}: {summary['rows']} rows, {summary['calls']} API calls.")


@app.command("import")
@with_client
def import_(
    client: Client,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The bundle's file; - for standard input.")],
    yes: Yes = False,
) -> Output:
    """Replace the merchant's world by a bundle. Ask for confirmation on a terminal.

    API keys and snapshots are kept. Endpoints that the merchant did not have get new secrets, which are shown only now.
    """
    content = _read(file)
    if not yes and client.may_prompt:
        typer.confirm(f"Replace all data of this merchant at {client.url} by {file}?", abort=True, err=True)
    with client.waiting("Importing the world"):
        found = client.request_json("PUT", _PATH, content=content, headers={"Content-Type": _MEDIA_TYPE}, timeout=_SECONDS)
    clock = "frozen at" if found["frozen"] else "running from"
    lines = [f"Imported {found['rows']} rows. The clock is {clock} {found['now']}."]
    lines += [
        f"  endpoint {endpoint['id']}: {endpoint['secret'] or endpoint['public_key'] or 'keeps its secret'}"
        for endpoint in found["endpoints"]
    ]
    return Output(found, "\n".join(lines))


@app.command("replay")
@with_operator
def replay(
    client: Client,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The bundle's file.")],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the merchant of the fresh world.")] = False,
) -> Output:
    """Repeat the calls of a bundle's journal against a new merchant, and show where the answers differ.

    Needs the operator's key. The exit code is 4 if answers differ.
    """
    import httpx

    from psp_sandbox.testing.fresh_world import CannotReplayError
    from psp_sandbox.testing.replay import replay as replay_bundle

    try:
        with client.waiting("Repeating the calls"):
            report = replay_bundle(file, client.url, client.key, keep=keep)
    except CannotReplayError as error:
        raise refused(str(error)) from error
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from error
    except httpx.TransportError as error:
        raise unreachable(f"{client.url} cannot be reached: {error or type(error).__name__}. Is `psp up` running?") from None
    failure = None if report.ok else not_met(f"{len(report.differing)} of {report.repeated} answers differ.")
    return Output(report.as_json(), str(report), failure)


@app.command("to-test")
def to_test(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The bundle's file.", dir_okay=False, exists=True)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The test's file. Default: standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a pytest test that makes the calls of a bundle's journal one by one, for you to read and change.

    If the bundle is of a failed test with an application, the test repeats what that one did with it.

    It needs the package's pytest plugin, and no sandbox while it is written.
    """
    from psp_sandbox.testing.fresh_world import CannotReplayError
    from psp_sandbox.testing.to_test import test_of_file as write_test

    try:
        source = write_test(file, output)
        if output is not None:
            output.write_text(source, "utf-8")
    except CannotReplayError as error:
        raise refused(str(error)) from error
    except OSError as error:
        raise typer.BadParameter(f"{error.filename} cannot be used: {error.strerror}") from error
    written = None if output is None else str(output)
    show({"file": written, "test": source}, as_json=as_json, text=source.rstrip("\n") if output is None else f"Wrote {output}.")


def _read(file: str) -> bytes:
    try:
        return sys.stdin.read().encode() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from error


def _rows(bundle: dict[str, Any]) -> int:
    return 1 + sum(len(table["rows"]) for table in bundle["tables"].values())
