"""Write an exploration as JUnit XML, which CI systems show."""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from psp_sandbox.testing.evidence.money import described, money_of
from psp_sandbox.testing.evidence.text import clean
from psp_sandbox.testing.evidence.words import CAUSES
from psp_sandbox.testing.explore.results import Exploration, PointResult, Verdict


def junit(found: Exploration) -> str:
    """Return a test suite with a case for each point: failed if it is wrong or unsettled, skipped if it was not reached."""
    counts = found.counts
    totals = {
        "tests": str(len(found.points)),
        "failures": str(counts[Verdict.WRONG] + counts[Verdict.UNSETTLED]),
        "errors": "0",
        "time": f"{sum(point.seconds for point in found.points):.3f}",
    }
    root = Element("testsuites", totals)
    skipped = str(counts[Verdict.NOT_REACHED])
    suite = SubElement(
        root, "testsuite", {"name": "psp explore", "timestamp": found.started_at[:19], **totals, "skipped": skipped}
    )
    for point in found.points:
        _add(suite, point, found.currency)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _add(suite: Element, point: PointResult, currency: str) -> None:
    names = {"classname": clean(point.test), "name": clean(point.name), "time": f"{point.seconds:.3f}"}
    case = SubElement(suite, "testcase", names)
    reason = clean(point.reason or point.verdict)
    if point.verdict in (Verdict.WRONG, Verdict.UNSETTLED):
        failure = SubElement(case, "failure", {"type": point.verdict, "message": reason})
        failure.text = clean(_details(point, currency))
    elif point.verdict is Verdict.NOT_REACHED:
        SubElement(case, "skipped").text = reason
    elif point.verdict is Verdict.REFUSED:
        SubElement(case, "system-out").text = reason


def _details(point: PointResult, currency: str) -> str:
    money = described(money_of(point.differences), currency)
    lines = [
        point.reason,
        f"Money: {money}" if money else None,
        f"Likely cause: {CAUSES[point.cause]}" if point.cause else None,
        f"Cure: {point.cure}" if point.cure else None,
        f"Repeat it: {point.repeat}" if point.repeat else None,
        f"World: {point.bundle}" if point.bundle else None,
    ]
    return "\n".join(filter(None, lines))
