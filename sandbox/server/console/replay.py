"""Write a recorded request as commands that send it again. Pure."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from sandbox.domain.redaction import CUT, HIDDEN
from sandbox.http.curl import MERCHANT_KEY, NEW_KEY, curl

_QUERY_CHARACTERS: Final = "/%:@!$&()*+,;=~-._?[]'"
_SENT_AGAIN: Final = ("x-sandbox-scenario", "accept", "content-type")
_IDS: Final = re.compile(r'"(\w*id)"\s*:\s*"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"')
_PAYOUT_PATH: Final = re.compile(r"/(?:api|sandbox)/v1/payouts/([0-9a-f-]{36})(?:/|\Z)")
_PAGES: Final = {
    "payout_id": "/payouts/",
    "user_id": "/users/",
    "endpoint_id": "/webhooks/",
    "delivery_id": "/webhooks/deliveries/",
    "event_id": "/webhooks/events/",
    "sale_id": "/users/sales/",
    "activity_id": "/users/bulk-credit/",
}
"""The name of an id → its page, from the merchant's first page on."""
_OWN_IDS: Final = (
    ("/api/v1/users", "user_id"),
    ("/api/v1/webhook-endpoints", "endpoint_id"),
    ("/api/v1/webhook-deliveries", "delivery_id"),
    ("/api/v1/events", "event_id"),
    ("/api/v1/sales", "sale_id"),
    ("/api/v1/payouts", "payout_id"),
    ("/sandbox/v1/payouts", "payout_id"),
)
"""The start of a path → the name of the id in its response's field `id`."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Commands that send a recorded request again."""

    fresh: str
    """With a new idempotency key, so that it has its effect again."""
    same: str
    """With the recorded idempotency key, so that the API replays its first response; empty without one."""
    is_incomplete: bool
    """Whether the journal has redacted or cut a part, which must be filled in."""


@dataclass(frozen=True, slots=True)
class Mention:
    """An id in a recorded request or its response."""

    name: str
    value: str
    page: str
    """Its page in the console, from the merchant's first page on."""


def replay(entry: Mapping[str, Any], public_url: str) -> Replay:
    """Return the commands that send an entry of the journal again, with the API key of the shell's PSP_API_KEY."""
    url = f"{public_url.rstrip('/')}{quote(entry['path'], safe='/%:@!$&()*+,;=~-._')}"
    if entry["query"]:
        url += f"?{quote(entry['query'], safe=_QUERY_CHARACTERS)}"
    headers = entry["request_headers"]
    sent = [f"-H {shlex.quote(f'{name}: {headers[name]}')}" for name in _SENT_AGAIN if headers.get(name, "*/*") != "*/*"]
    body = _pasteable(entry["request_body"])
    data = [f"-d {shlex.quote(body)}"] if body else []
    key = entry["idempotency_key"]

    def command(*more: str) -> str:
        return curl(entry["method"], shlex.quote(url), MERCHANT_KEY, *more, *sent, *data)

    parts = [url, body, *(headers[name] for name in _SENT_AGAIN if name in headers)]
    is_incomplete = any(mark in part for part in parts for mark in (HIDDEN, CUT))
    if key is None:
        return Replay(command(), "", is_incomplete)
    fresh = command(NEW_KEY)
    return Replay(fresh, command(f"-H {shlex.quote(f'X-IDEMPOTENCY-KEY: {key}')}"), is_incomplete)


def _pasteable(body: str) -> str:
    """Escape the characters that a terminal could interpret when the command is pasted, as JSON does."""
    return "".join(c if c.isprintable() or c in "\n\t" else json.dumps(c)[1:-1] for c in body.replace("\r\n", "\n"))


def query_of_entry(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the recorded query parameters."""
    return dict(parse_qsl(entry["query"]))


def body_of_entry(entry: Mapping[str, Any]) -> Any:
    """Return the recorded JSON body; None if there is none, or if it was cut or redacted."""
    text = entry["request_body"]
    if not text or HIDDEN in text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def problem_of_entry(entry: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the code and the detail if the response was a problem; None otherwise, or if it was cut."""
    try:
        found = json.loads(entry["response_body"]) if entry["status"] >= 400 else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("code"), str):
        return None
    return {"code": found["code"], "detail": str(found.get("detail", ""))}


def mentions(entry: Mapping[str, Any]) -> list[Mention]:
    """Return the ids that have a page, in the order in which the path, the request and the response name them."""
    own = next((name for start, name in _OWN_IDS if entry["path"].startswith(start)), "")
    found = [("payout_id", match[1]) for match in [_PAYOUT_PATH.match(entry["path"])] if match]
    # Bodies may be cut, so they are searched rather than decoded.
    found += [(name if name != "id" else own, value) for name, value in _IDS.findall(entry["request_body"])]
    found += [(name if name != "id" else own, value) for name, value in _IDS.findall(entry["response_body"])]
    return [Mention(name, value, f"{_PAGES[name]}{value}") for name, value in dict.fromkeys(found) if name in _PAGES]
