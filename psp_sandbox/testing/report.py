"""What the report of a failed test shows about its merchant, and the bundle that is saved."""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from psp_sandbox.client import PspError
from psp_sandbox.client._decode import decode
from psp_sandbox.client.models import JournalEntry
from psp_sandbox.testing.checks import describe_delivery
from psp_sandbox.testing.options import wire_time

if TYPE_CHECKING:
    from psp_sandbox.testing.world import World

_MAX_PAYOUTS: Final = 10
_MAX_REQUESTS: Final = 50
_MAX_DELIVERIES: Final = 30
_MAX_DETAILS: Final = 10
_MAX_LINE: Final = 300
_OWN_CALLS: Final = re.compile(
    r"(GET|POST|DELETE) /sandbox/v1/(audit|drain|faults|catalogue|clock)\b|GET /api/v1/webhook-deliveries\b"
)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.\-]+")

Section = tuple[str, str]
Item = TypeVar("Item")


def sections(world: "World") -> list[Section]:
    """Return the sections of the report, as (title, text): API calls, payouts and deliveries. Secrets are hidden."""
    parts: list[tuple[str, Callable[[World], list[str]]]] = [
        # The calls come first, so that they do not include those that read the rest.
        ("API calls", _requests), ("payouts", _payouts), ("webhook deliveries", _deliveries)
    ]  # fmt: skip
    found = []
    for title, read in parts:
        try:
            lines = read(world) or ["(none)"]
        except PspError as error:
            lines = [f"(not available: {error})"]
        found.append((f"PSP Sandbox: {title}", _redact(world, "\n".join(map(_cut, lines)))))
    return found


def save_bundle(world: "World", folder: Path, node_id: str) -> str:
    """Save the merchant's world in a file that is named after the test, and return a line that says where, or why it failed."""
    name = _UNSAFE.sub("-", node_id.replace("/", ".").replace("::", "--")).strip("-")[-180:]
    path = folder / f"{name}.psp-world.json"
    try:
        content = world.request("GET", "/sandbox/v1/world").content
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except (PspError, OSError) as error:
        return f"The world was not saved: {error}"
    return f"The world was saved in {path}. `psp world import {path}` loads it into another sandbox."


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


def _requests(world: "World") -> list[str]:
    # The list of requests may lack the newest ones for a moment. An export waits for them, and has them in order.
    calls = decode(list[JournalEntry], world.client.world.export()["journal"]["calls"])
    newest, lines = _newest(reversed(calls), _MAX_REQUESTS)
    for one in newest:
        call = f"{one.method} {one.path}{'?' if one.query else ''}{one.query}"
        if _OWN_CALLS.match(call):
            continue
        notes = [f"fault {one.fault.kind}"] if one.fault else []
        notes += ["replayed"] if one.replayed else []
        notes += [f"key {one.idempotency_key}"] if one.idempotency_key else []
        lines.append(f"{wire_time(one.at)}  {call} → {one.status}{''.join(f'  [{note}]' for note in notes)}")
        if one.request_body and one.method != "GET":
            lines.append(f"    sent: {one.request_body}")
        if one.status >= 400:
            lines.append(f"    answer: {one.response_body}")
    return lines


def _deliveries(world: "World") -> list[str]:
    newest, lines = _newest(world.client.deliveries.list(limit=_MAX_DELIVERIES), _MAX_DELIVERIES)
    details = 0
    for one in newest:
        if one.status != "SUCCEEDED" and details < _MAX_DETAILS:
            details += 1
            lines.append(f"{wire_time(one.created_at)}  {describe_delivery(world, one)}")
        else:
            lines.append(f"{wire_time(one.created_at)}  {one.event_type} {one.status} (attempts: {one.attempt_count})")
    invalid = [one for one in world.received.all() if one.problem is not None]
    lines += [f"arrived, but not valid: {one.problem} (answered {one.status})" for one in invalid[-_MAX_DETAILS:]]
    return lines


def _newest(items: Iterator[Item], count: int) -> tuple[list[Item], list[str]]:
    """Return the first items of a list that begins with the newest, oldest first, and a line if these are not all."""
    found = list(islice(items, count + 1))
    return found[count - 1 :: -1] if len(found) > count else found[::-1], [f"(only the newest {count})"] * (len(found) > count)


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}… ({len(line)} characters)"


def _redact(world: "World", text: str) -> str:
    for secret in (world.api_key, world.webhook_secret, world.ipn_secret):
        text = text.replace(secret, "***")
    return text
