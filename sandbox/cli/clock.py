"""`psp clock` and `psp drain`: a merchant's time."""

import re
from typing import Annotated, Any, Final

import typer

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, ReadyFile, Url, connect, show

app = typer.Typer(help="The clock of the merchant whose key is used.", no_args_is_help=True)
_SPAN: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?\Z", re.ASCII)
_UNITS: Final = (86_400, 3600, 60, 1)


@app.command("show")
def show_(url: Url = DEFAULT_URL, api_key: ApiKey = None, ready_file: ReadyFile = None, as_json: AsJson = False) -> None:
    """Show the clock. Exit code 0: shown; 1: refused; 2: wrong usage."""
    clock = connect(url, api_key, ready_file).get("/sandbox/v1/clock")
    show(clock, as_json=as_json, text=_line(clock))


@app.command("freeze")
def freeze(
    at: Annotated[str | None, typer.Option("--at", help="When, such as 2030-01-01T00:00:00Z; now unless given.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Freeze the clock. Exit code 0: frozen, and all done that fell due; 1: not, or refused; 2: wrong usage."""
    run = connect(url, api_key, ready_file).post("/sandbox/v1/clock/freeze", {} if at is None else {"at": at})
    _tell(run, as_json)


@app.command("advance")
def advance(
    span: Annotated[str | None, typer.Argument(help="How far: 75h, 2m, 10s, 1d12h, or a number of seconds.")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="How far, in seconds.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="To when, such as 2030-01-01T00:00:00Z.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ready_file: ReadyFile = None,
    as_json: AsJson = False,
) -> None:
    """Let time pass, and run all that falls due on the way: one of SPAN, --seconds and --to.

    Exit code 0: it has passed, and all is done; 1: not all of it, or refused; 2: wrong usage.
    """
    if (span is None) + (seconds is None) + (to is None) != 2:
        raise typer.BadParameter("Give one of SPAN, --seconds and --to.")
    body = {"to": to} if to is not None else {"seconds": seconds_of(span) if span is not None else seconds}
    _tell(connect(url, api_key, ready_file).post("/sandbox/v1/clock/advance", body), as_json)


@app.command("resume")
def resume(url: Url = DEFAULT_URL, api_key: ApiKey = None, ready_file: ReadyFile = None, as_json: AsJson = False) -> None:
    """Let the clock run on from where it stands. Exit code 0: it runs; 1: refused; 2: wrong usage."""
    clock = connect(url, api_key, ready_file).post("/sandbox/v1/clock/resume")
    show(clock, as_json=as_json, text=_line(clock))


def drain(url: Url = DEFAULT_URL, api_key: ApiKey = None, ready_file: ReadyFile = None, as_json: AsJson = False) -> None:
    """Wait until nothing that is due is left to do. Exit code 0: so it is; 1: not in time, or refused; 2: wrong usage."""
    drained = connect(url, api_key, ready_file).post("/sandbox/v1/drain")
    text = f"{drained['steps']} things were done. {drained['stopped_because'] or 'Nothing is due.'}"
    show(drained, as_json=as_json, text=text)
    if not drained["drained"]:
        raise typer.Exit(1)


def seconds_of(span: str) -> float:
    """The seconds of a span such as 75h, 1d12h, 10s or 90. Raises BadParameter, which ends a command with exit code 2."""
    found = _SPAN.match(span)
    if not span or found is None:
        raise typer.BadParameter(f"{span} is no span of time; write 75h, 2m, 10s, 1d12h, or a number of seconds.")
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part is not None)


def _tell(run: dict[str, Any], as_json: bool) -> None:
    stopped = run["stopped_because"]
    lines = [f"{_line(run)} {run['steps']} things fell due{'.' if stopped is None else f', and more may: {stopped}.'}"]
    for item in run["ran"]:
        what = f"{item['payout_id']} to {item['to']}" if item["kind"] == "payout_step" else f"webhook {item['outcome']}"
        lines.append(f"  {item['at']}  {what}")
    show(run, as_json=as_json, text="\n".join(lines))
    if not run["complete"]:
        raise typer.Exit(1)


def _line(clock: dict[str, Any]) -> str:
    if clock["frozen"]:
        return f"Frozen at {clock['now']}."
    return f"Running, now {clock['now']}, {clock['offset_seconds']:g} s from the host's."
