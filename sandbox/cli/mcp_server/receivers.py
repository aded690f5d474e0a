"""A tool that tests a webhook receiver for classic mistakes."""

import asyncio
import time
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from psp_sandbox.client.models import Finding, ReceiverTest
from sandbox.cli.mcp_server.results import Refusal, Result, cut
from sandbox.cli.mcp_server.tool import Calling, tool

_SECONDS: Final = 60.0
"""How long one call waits for the end of a test."""
_PAUSE: Final = 0.3


@tool("Certify a webhook receiver")
async def certify_receiver(
    calling: Calling,
    url: Annotated[str | None, Field(description="The URL of the receiver to test.")] = None,
    secret: Annotated[str | None, Field(description="The secret that the receiver verifies with. It is not stored.")] = None,
    signing: Annotated[
        Literal["v1", "v1a", "stripe", "github"], Field(description="How to sign: v1 and v1a follow Standard Webhooks.")
    ] = "v1",
    probe_url: Annotated[
        str | None,
        Field(
            description="A URL that shows the receiver's state: with ?payout_id=ID it returns {status, applied}. Without it, "
            "only the receiver's answers are judged."
        ),
    ] = None,
    language: Annotated[
        Literal["python", "node", "php", "go", "java"], Field(description="The language of the cures' code.")
    ] = "python",
    test_id: Annotated[str | None, Field(description="Look at a test that was still running, instead of starting one.")] = None,
) -> Result:
    """Test a webhook receiver for classic mistakes: signatures, replays, duplicates, order, large bodies, bursts and others.

    Each mistake comes with what was sent and answered, why it matters, and how to fix it. Waits for at most a minute; if the
    status is RUNNING then, call this again with `test_id`.
    """
    if (test_id is None) == (url is None or secret is None):
        raise Refusal("INVALID_ARGUMENTS", "Give `url` and `secret`, or `test_id`.", "Correct the arguments and call it again.")
    tests = calling.psp.receiver_tests
    ends = time.monotonic() + _SECONDS
    if test_id is None:
        found = await tests.create(url=url or "", secret=secret or "", signing=signing, probe_url=probe_url)
    else:
        found = await tests.get(test_id)
    while found.status == "RUNNING" and time.monotonic() < ends:
        await asyncio.sleep(_PAUSE)
        found = await tests.get(found.id)
    return Result(f"Test {found.id}: {found.status}. {found.summary.text}", _report(found, language, secret))


def _report(test: ReceiverTest, language: str, secret: str | None) -> dict[str, Any]:
    """Return what went wrong with its details, and the names of the other checks."""
    found: dict[str, Any] = {"test_id": test.id, "status": test.status, "error": test.error, "url": test.url}
    bad = [_finding(check, language) for check in test.checks if check.outcome in ("failed", "advice")]
    other = {outcome: [check.name for check in test.checks if check.outcome == outcome] for outcome in ("passed", "skipped")}
    return found | {"findings": [_without_secret(item, secret) for item in bad], **other}


def _finding(check: Finding, language: str) -> dict[str, Any]:
    answer = check.received
    return {
        "name": check.name,
        "outcome": check.outcome,
        "why": check.why,
        "sent": None if check.sent is None else check.sent.summary,
        "answered": None if answer is None else {"status": answer.status, "error": answer.error, "body": cut(answer.body)},
        "fix": check.cure.summary,
        "code": getattr(check.cure, language),
    }


def _without_secret(item: dict[str, Any], secret: str | None) -> dict[str, Any]:
    """Return a finding without the secret, which a receiver may have put into its answer."""
    if not secret or item["answered"] is None:
        return item
    return item | {"answered": {**item["answered"], "body": item["answered"]["body"].replace(secret, "[redacted]")}}
