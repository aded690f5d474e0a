"""Render a receiver test as JUnit XML, which CI systems show."""

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from sandbox.webhooks.receiver_tests.results import Finding

_TAB, _LINE_FEED, _CARRIAGE_RETURN = 9, 10, 13
_ALLOWED: Final = frozenset({_TAB, _LINE_FEED, _CARRIAGE_RETURN})


def junit(url: str, created_at: str, findings: Sequence[Finding], error: str | None) -> str:
    """Return one test suite with a test case for each finding. Advice is a passed case with output.

    It is valid by the schemas that Jenkins and other tools check: their `testsuites` has no count of skipped cases, and their
    `skipped` has text and no attributes.

    An `error`, which says why the test did not complete, is a case of its own.
    """
    failures = sum(finding.outcome == "failed" for finding in findings)
    skipped = sum(finding.outcome == "skipped" for finding in findings)
    seconds = sum(finding.received.duration_ms for finding in findings if finding.received is not None) / 1000
    count = len(findings) + (error is not None)
    totals = f'tests="{count}" failures="{failures}" errors="{int(error is not None)}" time="{seconds:.3f}"'
    cases = [_case(finding) for finding in findings]
    if error is not None:
        message = f'<error type="incomplete" message={_attribute(error)}/>'
        cases.append(f'<testcase classname="receiver" name="completed">{message}</testcase>')
    properties = f'<properties><property name="url" value={_attribute(url)}/></properties>'
    suite = f'<testsuite name="psp certify" timestamp="{created_at[:19]}" {totals} skipped="{skipped}">'
    lines = [f"<testsuites {totals}>", suite, properties, *cases, "</testsuite>", "</testsuites>"]
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + "\n".join(lines) + "\n"


def _case(finding: Finding) -> str:
    seconds = 0.0 if finding.received is None else finding.received.duration_ms / 1000
    start = f'<testcase classname="receiver" name="{finding.name}" time="{seconds:.3f}"'
    if finding.outcome == "passed":
        return start + "/>"
    if finding.outcome == "skipped":
        return f"{start}><skipped>{_text(finding.why)}</skipped></testcase>"
    if finding.outcome == "advice":
        return f"{start}><system-out>{_text(_details(finding))}</system-out></testcase>"
    failure = f'<failure type="failed" message={_attribute(finding.why)}>{_text(_details(finding))}</failure>'
    return f"{start}>{failure}</testcase>"


def _details(finding: Finding) -> str:
    lines = [finding.why, f"Fix: {finding.cure.summary}"]
    if finding.received is not None:
        answer = finding.received
        lines.append(f"Received: {answer.error or ''} {answer.status or ''} {answer.body}".replace("  ", " ").rstrip())
    if finding.sent is not None:
        lines.append(f"Repeat it:\n{finding.sent.curl}")
    return "\n".join(lines)


def _attribute(text: str) -> str:
    return quoteattr(_clean(text))


def _text(text: str) -> str:
    return escape(_clean(text))


def _clean(text: str) -> str:
    """Return the text with characters that XML 1.0 does not allow, such as most control characters, replaced."""
    return "".join(c if _is_allowed(ord(c)) else "\ufffd" for c in text)


def _is_allowed(code: int) -> bool:
    return code in _ALLOWED or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
