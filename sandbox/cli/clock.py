"""`psp clock` and `psp drain`: control a merchant's clock, and wait for due work."""

import re
from datetime import timedelta
from math import isfinite
from typing import Annotated, Any, Final

import typer

from sandbox.cli.app import App, Shown
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.dates import moment
from sandbox.cli.derived import command_of
from sandbox.cli.failures import not_met

app = App("The clock of the merchant whose key is used.")
_SPAN: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?\Z", re.ASCII)
_UNITS: Final = (86_400, 3600, 60, 1)


@app.command("advance")
@with_client
def advance(
    client: Client,
    span: Annotated[str | None, typer.Argument(help="How far: 75h, 2m, 10s, 1d12h, or a number of seconds.")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="How far, in seconds.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="The time to advance to, such as 2030-01-01T00:00:00Z.", callback=moment)
    ] = None,
) -> Output:
    """Advance the clock by SPAN or --seconds, or to --to, and run all work that falls due on the way.

    One call does a limited amount of work. The exit code is 4 if work remains; run the same command again to continue.
    """
    if (span is None) + (seconds is None) + (to is None) != 2:
        raise typer.BadParameter("Give exactly one of SPAN, --seconds and --to.")
    if seconds is not None and not isfinite(seconds):
        raise typer.BadParameter(f"{seconds} is not a number of seconds.")
    body = {"to": to} if to is not None else {"seconds": seconds_of(span) if span is not None else seconds}
    with client.waiting("Advancing the clock"):
        return _output(client.post("/sandbox/v1/clock/advance", body))


def seconds_of(span: str) -> float:
    """Return the seconds of a time span such as 75h, 1d12h, 10s or 90. Raises BadParameter."""
    found = _SPAN.match(span)
    if not span or found is None:
        raise typer.BadParameter(f"{span} is not a time span; write 75h, 2m, 10s, 1d12h, or a number of seconds.")
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part is not None)


@app.shows("freeze", waiting="Freezing", help="The exit code is 4 if work due by then remains.")
def _output(run: dict[str, Any]) -> Output:
    lines = [f"{_line(run)} Steps taken: {run['steps']}.", *(f"  {item['at']}  {_what_ran(item)}" for item in run["ran"])]
    failure = None if run["complete"] else not_met(f"Some due work is not done: {run['stopped_because']}.")
    return Output(run, "\n".join(lines), failure)


def _what_ran(item: dict[str, Any]) -> str:
    if item["kind"] == "payout_step":
        return f"{item['payout_id']} to {item['to']}"
    if item["kind"] == "sale_payment":
        return f"sale {item['sale_id']}: {item['error'] or item['payment'] + ' of ' + item['amount']}"
    return f"webhook {item['outcome']}"


@app.shows("due")
def _due(found: dict[str, Any]) -> str:
    lines = [f"{item['due_at']}  {_subject(item)}: {item['description']}" for item in found["data"]]
    if found["has_more"]:
        lines.append("There is more.")
    return "\n".join(lines or ["Nothing is scheduled."])


def _subject(item: dict[str, Any]) -> str:
    name = {"payout_step": "payout", "sale_payment": "sale", "delivery_attempt": "delivery"}[item["kind"]]
    return f"{name} {item[f'{name}_id']}"


@app.shows("show", "resume")
def _line(clock: dict[str, Any]) -> str:
    if clock["frozen"]:
        return f"Frozen at {clock['now']}."
    offset = timedelta(seconds=round(clock["offset_seconds"]))
    if not offset:
        return f"Running, now {clock['now']}, same as the host's clock."
    return f"Running, now {clock['now']}, {abs(offset)} {'ahead of' if offset > timedelta(0) else 'behind'} the host's clock."


def _drained(drained: dict[str, Any]) -> Output:
    text = f"Steps taken: {drained['steps']}."
    if drained["drained"]:
        return Output(drained, f"{text} No work is due.")
    return Output(drained, text, not_met(f"Work is still due: {drained['stopped_because']}."))


drain = command_of("drain", shown=Shown(_drained, "Waiting for due work", "The exit code is 4 if work remains."))
