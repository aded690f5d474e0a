"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """How to fix a receiver: in words, and in code in five languages."""

    summary: str
    python: str
    node: str
    php: str
    go: str
    java: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """The request that decided a check.

    `curl` repeats it, with the requests before it if they matter. The secret is not in it. A receiver that checks
    timestamps accepts its signature for five minutes.
    """

    summary: str
    method: str
    url: str
    headers: dict[str, str]
    body: str
    curl: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedAnswer:
    """The receiver's answer. Without one, `status` is null and `error` says why."""

    status: int | None
    headers: dict[str, str]
    body: str
    duration_ms: float
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    `why` says what was observed, unless the check passed, and why it matters. `sent` and `received` are null if
    nothing was sent.
    """

    name: str
    outcome: Literal["advice", "failed", "passed", "skipped"]
    sent: SentRequest | None
    received: ReceivedAnswer | None
    why: str
    cure: Cure


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverTestSummary:
    """How many of the checks had each outcome so far. `judged_by` says whether a probe showed the effects."""

    total: int
    passed: int
    failed: int
    skipped: int
    advice: int
    judged_by: Literal["statuses", "statuses and effects"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedReceiverTest:
    """A test of a webhook receiver without its findings. It is PASSED if no check failed.

    `error` says why a test did not complete; such a test is FAILED.
    """

    id: str
    status: Literal["FAILED", "PASSED", "RUNNING"]
    url: str
    probe_url: str | None
    signing: str
    summary: ReceiverTestSummary
    error: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotVisible:
    """What this test cannot see. `seen_with` is the option of `psp certify` with which it could, or null."""

    what: str
    seen_with: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverTest:
    """A test of a webhook receiver. While it runs, `checks` has those that are done. It is PASSED if no check failed.

    `error` says why a test did not complete; such a test is FAILED.
    """

    id: str
    status: Literal["FAILED", "PASSED", "RUNNING"]
    url: str
    probe_url: str | None
    signing: str
    summary: ReceiverTestSummary
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    checks: list[Finding]
    not_visible: list[NotVisible]
