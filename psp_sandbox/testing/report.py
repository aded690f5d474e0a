"""What the report of a failed test shows about its merchant, and the bundle that is saved."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from psp_sandbox.testing.checks import describe_delivery
from psp_sandbox.testing.sandbox import SandboxError

if TYPE_CHECKING:
    from psp_sandbox.testing.world import World

_MAX_PAYOUTS: Final = 10
_MAX_REQUESTS: Final = 30
_MAX_DELIVERIES: Final = 30
_MAX_DETAILS: Final = 10
_MAX_LINE: Final = 300
_OWN_CALLS: Final = re.compile(
    r"(GET|POST|DELETE) /sandbox/v1/(audit|drain|faults|catalogue|clock)\b|GET /api/v1/webhook-deliveries\b"
)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.\-]+")

Section = tuple[str, str]


def sections(world: "World") -> list[Section]:
    """Return the sections of the report, as (title, text): payouts, API calls and deliveries. Secrets are hidden."""
    parts: list[tuple[str, Callable[[World], list[str]]]] = [
        ("payouts", _payouts), ("API calls", _requests), ("webhook deliveries", _deliveries)
    ]  # fmt: skip
    found = []
    for title, read in parts:
        try:
            lines = read(world) or ["(none)"]
        except SandboxError as error:
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
    except (SandboxError, OSError) as error:
        return f"The world was not saved: {error}"
    return f"The world was saved in {path}. `psp world import {path}` loads it into another sandbox."


def _payouts(world: "World") -> list[str]:
    page = world.request("GET", "/api/v1/payouts", params={"limit": _MAX_PAYOUTS}).json()
    lines = [f"(only the newest {_MAX_PAYOUTS})"] if page["has_more"] else []
    for one in reversed(page["data"]):
        failure = f", {one['failure_code']}" if one["failure_code"] else ""
        lines.append(f"{one['merchant_reference']}: {one['amount']} {one['currency']}, {one['status']}{failure} ({one['id']})")
        timeline = world.request("GET", f"/api/v1/payouts/{one['id']}/timeline").json()["data"]
        lines += [f"  {entry['at']}  {entry['from'] or '-'} → {entry['to']}  ({entry['cause']})" for entry in timeline]
    return lines


def _requests(world: "World") -> list[str]:
    page = world.request("GET", "/sandbox/v1/requests", params={"limit": 100}).json()
    lines = []
    for one in reversed(page["data"]):
        query = f"?{one['query']}" if one["query"] else ""
        call = f"{one['method']} {one['path']}{query}"
        if _OWN_CALLS.match(call):
            continue
        notes = [f"fault {one['fault']['kind']}"] if one["fault"] else []
        notes += ["replayed"] if one["replayed"] else []
        notes += [f"key {one['idempotency_key']}"] if one["idempotency_key"] else []
        lines.append(f"{one['at']}  {call} → {one['status']}{''.join(f'  [{note}]' for note in notes)}")
        if one["request_body"] and one["method"] != "GET":
            lines.append(f"    sent: {one['request_body']}")
        if one["status"] >= 400:
            lines.append(f"    answer: {one['response_body']}")
    return _last(lines, _MAX_REQUESTS * 2)


def _deliveries(world: "World") -> list[str]:
    page = world.request("GET", "/api/v1/webhook-deliveries", params={"limit": _MAX_DELIVERIES}).json()
    lines = [f"(only the newest {_MAX_DELIVERIES})"] if page["has_more"] else []
    details = 0
    for one in reversed(page["data"]):
        if one["status"] != "SUCCEEDED" and details < _MAX_DETAILS:
            details += 1
            lines.append(f"{one['created_at']}  {describe_delivery(world, one)}")
        else:
            lines.append(f"{one['created_at']}  {one['event_type']} {one['status']} (attempts: {one['attempt_count']})")
    invalid = [one for one in world.received.all() if one.problem is not None]
    lines += [f"arrived, but not valid: {one.problem} (answered {one.status})" for one in invalid[-_MAX_DETAILS:]]
    return lines


def _last(lines: list[str], count: int) -> list[str]:
    return lines if len(lines) <= count else [f"({len(lines) - count} earlier lines are not shown)", *lines[-count:]]


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}… ({len(line)} characters)"


def _redact(world: "World", text: str) -> str:
    for secret in (world.api_key, world.webhook_secret, world.ipn_secret):
        text = text.replace(secret, "***")
    return text
