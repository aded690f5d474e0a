"""The report of a receiver test: its findings, with the texts that explain them and the code that fixes them."""

import functools
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Annotated, Final, Literal

import msgspec

from sandbox.domain.redaction import CUT, HIDDEN, SECRET, Address
from sandbox.webhooks.receiver_tests.checks import NAMES
from sandbox.webhooks.receiver_tests.events import Outgoing
from sandbox.webhooks.receiver_tests.judges import Answer, Outcome

LANGUAGES: Final = ("python", "node", "php", "go", "java")
_BODY_LIMIT: Final = 2000
_VERIFYING: Final = ("verify", "timestamp", "missing", "malformed", "rotation")
"""The names of code that verifies a signature."""


class SentRequest(msgspec.Struct):
    """The request that decided a check.

    `curl` repeats it, with the requests before it if they matter. The secret is not in it. A receiver that checks timestamps
    accepts its signature for five minutes.
    """

    summary: str
    method: str
    url: Address
    headers: dict[str, str]
    body: str
    """At most 2000 characters."""
    curl: Annotated[str, SECRET]


class ReceivedAnswer(msgspec.Struct):
    """The receiver's answer. Without one, `status` is null and `error` says why."""

    status: int | None
    headers: dict[str, str]
    body: str
    """At most 2000 characters."""
    duration_ms: float
    error: str | None


class Cure(msgspec.Struct):
    """How to fix a receiver: in words, and in code in five languages."""

    summary: str
    python: str
    node: str
    php: str
    go: str
    java: str


class StoredFinding(msgspec.Struct):
    """A finding as it is stored."""

    name: str
    outcome: Outcome
    sent: SentRequest | None
    received: ReceivedAnswer | None
    observation: str


class Finding(msgspec.Struct):
    """The result of one check.

    `why` says what was observed, unless the check passed, and why it matters. `sent` and `received` are null if nothing was
    sent.
    """

    name: str
    outcome: Outcome
    sent: SentRequest | None
    received: ReceivedAnswer | None
    why: str
    cure: Cure


class ReceiverTestSummary(msgspec.Struct):
    """How many of the checks had each outcome so far. `judged_by` says whether a probe showed the effects."""

    total: int
    passed: int
    failed: int
    skipped: int
    advice: int
    judged_by: Literal["statuses", "statuses and effects"]
    text: str


class NotVisible(msgspec.Struct):
    """What this test cannot see. `seen_with` is the option of `psp certify` with which it could, or null."""

    what: str
    seen_with: str | None = None


def not_visible(has_probe: bool) -> list[NotVisible]:
    """Return what a test with or without a probe cannot see."""
    return [one for one in _texts().not_visible if not (has_probe and one.seen_with == "--probe-url")]


def summary(outcomes: Sequence[Outcome], has_probe: bool) -> ReceiverTestSummary:
    """Return the summary of a test with these outcomes so far."""
    count = Counter(outcomes)
    text = f"{count['passed']} passed, {count['failed']} failed, {count['advice']} with advice, {count['skipped']} skipped."
    if not has_probe:
        text += " Without a probe URL, only the receiver's status codes were judged, not what it did."
    return ReceiverTestSummary(
        total=max(len(NAMES), len(outcomes)),
        passed=count["passed"],
        failed=count["failed"],
        skipped=count["skipped"],
        advice=count["advice"],
        judged_by="statuses and effects" if has_probe else "statuses",
        text=text,
    )


def shown(finding: StoredFinding, signing: str) -> Finding:
    """Return a finding with its explanation, and with the cure for a receiver of this way of signing."""
    check = _texts().checks[finding.name]
    # For a skipped check, the reason is the explanation.
    explanation = "" if finding.outcome == "skipped" else check.advice if finding.outcome == "advice" else check.why
    return Finding(
        name=finding.name,
        outcome=finding.outcome,
        sent=finding.sent,
        received=finding.received,
        why=f"{finding.observation} {explanation}".strip(),
        cure=_cure(finding.name, signing, _cause(finding)),
    )


def sent_request(url: str, requests: Sequence[Outgoing], decisive: int, command: str) -> SentRequest:
    """Describe the decisive one of a check's requests. `command` is the curl command."""
    request, count = requests[decisive], len(requests)
    summary = request.label.rstrip(",")
    return SentRequest(
        summary=summary if count == 1 else f"{summary} (request {decisive + 1} of {count})",
        method=request.method,
        url=url,
        headers=dict(request.headers),
        body=_cut(request.body.decode()),
        curl=command,
    )


def received_answer(answer: Answer, secrets: list[str]) -> ReceivedAnswer:
    """Describe an answer. A receiver may send its secret back, so hide that."""
    return ReceivedAnswer(
        status=answer.status,
        headers={name: _without(value, secrets) for name, value in answer.headers.items()},
        body=_cut(_without(answer.body, secrets)),
        duration_ms=round(answer.seconds * 1000, 1),
        error=answer.error,
    )


def _without(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def _cut(text: str) -> str:
    return text if len(text) <= _BODY_LIMIT else text[:_BODY_LIMIT] + CUT


class _Check(msgspec.Struct):
    why: str
    cure: str
    code: str
    advice: str = ""
    cures: dict[str, str] = {}
    """Other cures for answers with a status: `404`, `5xx`, `none`."""
    code_of_cures: str = ""


class _Texts(msgspec.Struct):
    not_visible: list[NotVisible]
    checks: dict[str, _Check]
    code: dict[str, dict[str, str]]


@functools.cache
def _texts() -> _Texts:
    """Return the contents of `checks.toml`. Only the first call reads the file."""
    return msgspec.toml.decode(
        resources.files("sandbox.webhooks.receiver_tests").joinpath("checks.toml").read_bytes(), type=_Texts
    )


def _cause(finding: StoredFinding) -> str:
    """Return which of a check's other cures a finding needs, or an empty text if it needs the usual one."""
    if finding.outcome != "failed" or finding.received is None:
        return ""
    status = finding.received.status
    names = ("none",) if status is None else (str(status), f"{status // 100}xx")
    return next((name for name in names if name in _texts().checks[finding.name].cures), "")


@functools.cache
def _cure(name: str, signing: str, cause: str) -> Cure:
    texts = _texts()
    check = texts.checks[name]
    if cause:
        return Cure(summary=check.cures[cause], **_stripped(texts.code[check.code_of_cures]))
    # Code that verifies differs between the ways of signing; all other code is the same.
    # A custom signature is made like GitHub's, with its own header, hash and content.
    name = "github" if signing == "custom" else signing
    code = texts.code[name] if check.code in _VERIFYING and signing != "v1" else texts.code[check.code]
    return Cure(summary=check.cure, **_stripped(code))


def _stripped(code: dict[str, str]) -> dict[str, str]:
    return {language: snippet.strip() for language, snippet in code.items()}
