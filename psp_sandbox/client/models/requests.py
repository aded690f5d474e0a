"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultNote:
    """A fault that hit, as the journal shows it."""

    id: str
    kind: str
    seed: int | None
    counter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """A call in the journal. Bodies are cut to 4000 bytes; anything that might be a key or a secret reads
    `[redacted]`.

    `traceparent` is as sent, or the one that the sandbox started.
    """

    id: str
    at: datetime
    method: str
    path: str
    query: str
    status: int
    duration_ms: float
    request_id: str
    traceparent: str
    idempotency_key: str | None
    replayed: bool
    api_key_id: str | None
    request_headers: dict[str, str]
    request_body: str
    response_body: str
    fault: FaultNote | None
