"""What the API shows of receiver tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from sandbox.domain.clock import render
from sandbox.domain.redaction import Address
from sandbox.webhooks.receiver_tests.checks import NAMES
from sandbox.webhooks.receiver_tests.judges import Outcome
from sandbox.webhooks.receiver_tests.results import (
    Finding,
    NotVisible,
    ReceiverTestSummary,
    StoredFinding,
    not_visible,
    shown,
    summary,
)

_DEAD_AFTER: Final = timedelta(seconds=15)
"""A running test without a heartbeat for this long has lost its process."""
TestStatus = Literal["RUNNING", "PASSED", "FAILED"]
_findings: Final = msgspec.json.Decoder(list[StoredFinding])
_outcomes: Final = msgspec.json.Decoder(list[Outcome])


class ListedReceiverTest(msgspec.Struct, kw_only=True):
    """A test of a webhook receiver without its findings. It is PASSED if no check failed.

    `error` says why a test did not complete; such a test is FAILED.
    """

    id: str
    status: TestStatus
    url: Address
    probe_url: Address | None
    signing: str
    summary: ReceiverTestSummary
    error: str | None
    created_at: str
    finished_at: str | None


class ReceiverTest(ListedReceiverTest, kw_only=True):
    """A test of a webhook receiver. While it runs, `checks` has those that are done. It is PASSED if no check failed.

    `error` says why a test did not complete; such a test is FAILED.
    """

    checks: list[Finding]
    not_visible: list[NotVisible]


def verdict(outcomes: Sequence[Outcome]) -> TestStatus:
    """Return the status of a test that is done."""
    return "FAILED" if "failed" in outcomes else "PASSED"


def to_listed_test(record: Mapping[str, Any]) -> ListedReceiverTest:
    """Return a test without its findings, from its row and the outcomes of these."""
    return ListedReceiverTest(**_shown(record, _outcomes.decode(record["outcomes"])))


def to_test(record: Mapping[str, Any]) -> ReceiverTest:
    """Return a test with its findings so far, from its row."""
    findings = _findings.decode(record["findings"])
    # A test that runs checks in parallel finds them in another order.
    findings.sort(key=lambda finding: NAMES.index(finding.name))
    return ReceiverTest(
        **_shown(record, [finding.outcome for finding in findings]),
        checks=[shown(finding, record["signing"]) for finding in findings],
        not_visible=not_visible(record["probe_url"] is not None),
    )


def _shown(record: Mapping[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    is_finished, is_interrupted = record["is_finished"], record["interrupted"]
    if not is_finished and datetime.now(UTC) - record["heartbeat_at"] > _DEAD_AFTER:
        is_finished = is_interrupted = True
    error = None
    if is_interrupted:
        missing = len(NAMES) - len(outcomes)
        error = f"The sandbox stopped while the test ran, so {missing} checks are missing. Start another test."
    status: TestStatus = "RUNNING" if not is_finished else "FAILED" if is_interrupted else verdict(outcomes)
    return {
        "id": str(record["id"]),
        "status": status,
        "url": record["url"],
        "probe_url": record["probe_url"],
        "signing": record["signing"],
        "summary": summary(outcomes, record["probe_url"] is not None),
        "error": error,
        "created_at": render(record["created_at"]),
        "finished_at": render(record["heartbeat_at"]) if is_finished else None,
    }
