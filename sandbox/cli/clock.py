"""`psp clock` and `psp drain`: a merchant's time."""

import re
from math import isfinite
from typing import Annotated, Any, Final

import typer

from sandbox.cli.client import Client, Shown, with_client

app = typer.Typer(help="The clock of the merchant whose key is used.", no_args_is_help=True)
_SPAN: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?\Z", re.ASCII)
_UNITS: Final = (86_400, 3600, 60, 1)


@app.command("show")
@with_client
def show_(client: Client) -> Shown:
    """Show the clock. Exit code 0: shown; 1: refused; 2: wrong usage."""
    clock = client.get("/sandbox/v1/clock")
    return Shown(clock, _line(clock))


@app.command("freeze")
@with_client
def freeze(
    client: Client,
    at: Annotated[str | None, typer.Option("--at", help="When, such as 2030-01-01T00:00:00Z; now unless given.")] = None,
) -> Shown:
    """Freeze the clock. Exit code 0: frozen, and all done that fell due; 1: not, or refused; 2: wrong usage."""
    run = client.post("/sandbox/v1/clock/freeze", {} if at is None else {"at": at})
    return _told(run)


@app.command("advance")
@with_client
def advance(
    client: Client,
    span: Annotated[str | None, typer.Argument(help="How far: 75h, 2m, 10s, 1d12h, or a number of seconds.")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="How far, in seconds.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="To when, such as 2030-01-01T00:00:00Z.")] = None,
) -> Shown:
    """Let time pass, and run all that falls due on the way: one of SPAN, --seconds and --to.

    Exit code 0: it has passed, and all is done; 1: not all of it, or refused; 2: wrong usage.
    """
    if (span is None) + (seconds is None) + (to is None) != 2:
        raise typer.BadParameter("Give one of SPAN, --seconds and --to.")
    if seconds is not None and not isfinite(seconds):
        raise typer.BadParameter(f"{seconds} is no number of seconds.")
    body = {"to": to} if to is not None else {"seconds": seconds_of(span) if span is not None else seconds}
    return _told(client.post("/sandbox/v1/clock/advance", body))


@app.command("resume")
@with_client
def resume(client: Client) -> Shown:
    """Let the clock run on from where it stands. Exit code 0: it runs; 1: refused; 2: wrong usage."""
    clock = client.post("/sandbox/v1/clock/resume")
    return Shown(clock, _line(clock))


@with_client
def drain(client: Client) -> Shown:
    """Wait until nothing that is due is left to do. Exit code 0: so it is; 1: not in time, or refused; 2: wrong usage."""
    drained = client.post("/sandbox/v1/drain")
    text = f"{drained['steps']} things were done. {drained['stopped_because'] or 'Nothing is due.'}"
    return Shown(drained, text, 0 if drained["drained"] else 1)


def seconds_of(span: str) -> float:
    """The seconds of a span such as 75h, 1d12h, 10s or 90. Raises BadParameter, which ends a command with exit code 2."""
    found = _SPAN.match(span)
    if not span or found is None:
        raise typer.BadParameter(f"{span} is no span of time; write 75h, 2m, 10s, 1d12h, or a number of seconds.")
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part is not None)


def _told(run: dict[str, Any]) -> Shown:
    stopped = run["stopped_because"]
    lines = [f"{_line(run)} {run['steps']} things fell due{'.' if stopped is None else f', and more may: {stopped}.'}"]
    for item in run["ran"]:
        what = f"{item['payout_id']} to {item['to']}" if item["kind"] == "payout_step" else f"webhook {item['outcome']}"
        lines.append(f"  {item['at']}  {what}")
    return Shown(run, "\n".join(lines), 0 if run["complete"] else 1)


def _line(clock: dict[str, Any]) -> str:
    if clock["frozen"]:
        return f"Frozen at {clock['now']}."
    return f"Running, now {clock['now']}, {clock['offset_seconds']:g} s from the host's."
