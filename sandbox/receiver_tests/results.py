"""What a receiver test reports: its findings, with the texts that explain them and the code that fixes them."""

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Final

import msgspec

from sandbox.domain.receiver_checks import Answer, Exchange, Outcome
from sandbox.domain.receiver_curl import curl
from sandbox.domain.receiver_events import Outgoing
from sandbox.domain.redaction import CUT, HIDDEN, SECRET, Address

LANGUAGES: Final = ("python", "node", "php", "go", "java")
_BODY_LIMIT: Final = 2000


class SentRequest(msgspec.Struct):
    """The request that decided a check.

    `curl` repeats all requests of the check. A signature stays valid for five minutes; the secret is not in it.
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


def shown(finding: StoredFinding) -> Finding:
    """Return a finding with its explanation and cure."""
    why, cure = _texts()[finding.name]
    return Finding(
        name=finding.name,
        outcome=finding.outcome,
        sent=finding.sent,
        received=finding.received,
        why=f"{finding.observation} {why}".strip(),
        cure=cure,
    )


def sent_request(url: str, exchanges: list[Exchange], decisive: int, at_once: int) -> SentRequest:
    """Describe the decisive one of a check's requests, and how to repeat all of them."""
    request = exchanges[decisive].sent
    count = len(exchanges)
    summary = request.label if count == 1 else f"{request.label}: request {decisive + 1} of {count}".replace(",:", ":")
    requests: list[Outgoing] = [exchange.sent for exchange in exchanges]
    return SentRequest(
        summary=summary,
        method=request.method,
        url=url,
        headers=dict(request.headers),
        body=_cut(request.body.decode()),
        curl=curl(url, requests, at_once),
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


@functools.cache
def _texts() -> Mapping[str, tuple[str, Cure]]:
    """Return each check's explanation and cure from `checks.toml`. Only the first call reads the file."""
    texts = tomllib.loads(resources.files("sandbox.receiver_tests").joinpath("checks.toml").read_text("utf-8"))
    code = {name: {language: snippet.strip() for language, snippet in of.items()} for name, of in texts["code"].items()}
    return {name: (check["why"], Cure(summary=check["cure"], **code[check["code"]])) for name, check in texts["checks"].items()}
