"""The sections about the merchant in the report of a failed test, and the bundle that is saved."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psp_sandbox.client import PspError
from psp_sandbox.testing.checks import describe_delivery
from psp_sandbox.testing.options import wire_time
from psp_sandbox.testing.recording import BUNDLE_END, Recorded, arrivals_of, file_beside

if TYPE_CHECKING:
    from psp_sandbox.testing.live_process import LiveProcess
    from psp_sandbox.testing.world import World

_MAX_PAYOUTS: Final = 10
_MAX_REQUESTS: Final = 50
_MAX_DELIVERIES: Final = 30
_MAX_DETAILS: Final = 10
_MAX_EVENTS: Final = 100
"""Several endpoints can get the same event, so there are at most as many events as deliveries; repeated ones may be older."""
_MAX_OUTPUT: Final = 50
"""Lines of an application's output."""
_MAX_LINE: Final = 300
_OWN_CALLS: Final = re.compile(
    r"(GET|POST|DELETE) /sandbox/v1/(audit|drain|faults|catalogue|clock)\b|GET /api/v1/webhook-deliveries\b"
)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.\-]+")

Section = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FailedTest:
    """What pytest knows of a test that failed."""

    node_id: str
    failure: str
    """What it asserted, as the report shows it."""
    fixtures: Sequence[str]
    """The fixtures that it asks for."""


Item = TypeVar("Item")


def evidence(world: "World", folder: Path, test: FailedTest) -> list[Section]:
    """Save the merchant's world, and return the sections of the report, as (title, text). Secrets are hidden.

    If the test has an application, what it did with it is saved, too, so that `psp world to-test` can repeat it.

    The sections are API calls, payouts, deliveries, and where the world was saved: in `folder`, in a file that is named after
    the test.
    """
    try:
        # The list of requests may lack the newest ones for a moment. An export waits for them, and has them in order. It comes
        # first, so that it does not include the calls that read the rest.
        bundle = world.request("GET", "/sandbox/v1/world").content
    except PspError as error:
        calls, saved = [f"(not available: {error})"], f"The world was not saved: {error}"
    else:
        calls, saved = _requests(json.loads(bundle)["journal"]["calls"]), _save(world, bundle, folder, test)
    parts = [
        ("API calls (the host's time)", calls),
        ("payouts (the merchant's time)", _read(_payouts, world)),
        ("webhook deliveries (the merchant's time)", _read(_deliveries, world)),
        *((f"output of {_output_of(one)}", one.output.splitlines()[-_MAX_OUTPUT:]) for one in world.processes),
        ("world", [saved]),
    ]
    return [(f"PSP Sandbox: {title}", _redact(world, "\n".join(map(_cut, lines or ["(none)"])))) for title, lines in parts]


def _output_of(process: "LiveProcess") -> str:
    """Return the command, and how it ended if it has ended."""
    return process.name if process.exit_code is None else f"{process.name} (ended with exit code {process.exit_code})"


def _read(read: "Callable[[World], list[str]]", world: "World") -> list[str]:
    try:
        return read(world)
    except PspError as error:
        return [f"(not available: {error})"]


def _save(world: "World", bundle: bytes, folder: Path, test: FailedTest) -> str:
    """Save a bundle and what the test did with its application, and return a line that says where, or why it failed."""
    name = _UNSAFE.sub("-", test.node_id.replace("/", ".").replace("::", "--")).strip("-")[-180:]
    path = folder / f"{name}{BUNDLE_END}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundle)
        if world.app is not None:
            file_beside(path).write_text(_redact(world, _recorded(world, test).to_json()), "utf-8")
    except OSError as error:
        return f"The world was not saved: {error}"
    return f"The world was saved in {path}. `psp world import {path}` loads it into another sandbox."


def _recorded(world: "World", test: FailedTest) -> Recorded:
    return Recorded(
        test=test.node_id,
        failure=test.failure,
        fixtures=test.fixtures,
        options={"allow_failed_deliveries": world.allow_failed_deliveries},
        steps=world.recording.steps,
        starts=world.recording.starts,
        arrivals=arrivals_of(world.received),
    )


def _payouts(world: "World") -> list[str]:
    newest, lines = _newest(world.client.payouts.list(limit=_MAX_PAYOUTS), _MAX_PAYOUTS)
    for one in newest:
        failure = f", {one.failure_code}" if one.failure_code else ""
        lines.append(f"{one.merchant_reference}: {one.amount} {one.currency}, {one.status}{failure} ({one.id})")
        lines += [
            f"  {wire_time(step.at)}  {step.from_ or '-'} → {step.to}  ({step.cause})"
            for step in world.client.payouts.timeline(one.id)
        ]
    return lines


def _requests(calls: list[dict[str, Any]]) -> list[str]:
    # Drop the plugin's own calls first, and count repeated ones as one, so that polls do not displace the application's calls.
    others = (one for one in reversed(calls) if not _OWN_CALLS.match(_shown(one)))
    groups = ([next(group), *group] for _, group in groupby(others, _outcome))
    newest, lines = _newest(groups, _MAX_REQUESTS)
    for group in newest:
        one = group[-1]  # the oldest of them
        notes = [f"fault {one['fault']['kind']}"] if one["fault"] else []
        notes += ["replayed"] if one["replayed"] else []
        notes += [f"key {one['idempotency_key']}"] if one["idempotency_key"] else []
        notes += [f"{len(group)} times"] if len(group) > 1 else []
        lines.append(f"{one['at']}  {_shown(one)} → {one['status']}{''.join(f'  [{note}]' for note in notes)}")
        if one["request_body"] and one["method"] != "GET":
            lines.append(f"    sent: {one['request_body']}")
        if one["status"] >= 400:
            lines.append(f"    answer: {one['response_body']}")
    return lines


def _shown(call: dict[str, Any]) -> str:
    """Return the method and path of a call."""
    return f"{call['method']} {call['path']}{'?' if call['query'] else ''}{call['query']}"


def _outcome(call: dict[str, Any]) -> tuple[Any, ...]:
    """Return a key that is equal for repeated calls with the same answer, and different for all others."""
    if call["method"] not in ("GET", "HEAD"):
        return (call["request_id"],)
    return _shown(call), call["status"], call["response_body"], call["fault"], call["api_key_id"]


def _deliveries(world: "World") -> list[str]:
    newest, lines = _newest(world.client.deliveries.list(limit=_MAX_DELIVERIES), _MAX_DELIVERIES)
    details = 0
    payouts = _payouts_of_events(world)
    for one in newest:
        about = f"  [{payouts[one.event_id]}]" if one.event_id in payouts else ""
        if one.status != "SUCCEEDED" and details < _MAX_DETAILS:
            details += 1
            lines.append(f"{wire_time(one.created_at)}  {describe_delivery(world, one)}{about}")
        else:
            lines.append(f"{wire_time(one.created_at)}  {one.event_type} {one.status} (attempts: {one.attempt_count}){about}")
    invalid = [one for one in world.received.all() if one.problem is not None]
    lines += [f"arrived, but not valid: {one.problem} (answered {one.status})" for one in invalid[-_MAX_DETAILS:]]
    return lines


def _payouts_of_events(world: "World") -> dict[str, str]:
    """Return the merchant references of the newest events' payouts, by event id."""
    events = islice(world.client.events.list(limit=_MAX_EVENTS), _MAX_EVENTS)
    return {one.id: one.data["merchant_reference"] for one in events if "merchant_reference" in one.data}


def _newest(items: Iterator[Item], count: int) -> tuple[list[Item], list[str]]:
    """Return the first items of a list that begins with the newest, oldest first, and a line if these are not all."""
    found = list(islice(items, count + 1))
    return found[count - 1 :: -1] if len(found) > count else found[::-1], [f"(only the newest {count})"] * (len(found) > count)


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}… ({len(line)} characters)"


def _redact(world: "World", text: str) -> str:
    of_processes = (one.webhook_secret for one in world.processes)
    for secret in (world.api_key, world.webhook_secret, world.ipn_secret, *filter(None, of_processes)):
        text = text.replace(secret, "***")
    return text
