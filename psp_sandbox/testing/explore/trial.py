"""One run of a test or command: the evidence at rest, the verdict and, if something is wrong, what explains it."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from psp_sandbox.client import PspError
from psp_sandbox.testing.connections import send
from psp_sandbox.testing.explore.books import Names, Paid, Row, differences
from psp_sandbox.testing.explore.causes import cure, likely_cause
from psp_sandbox.testing.explore.judge import Evidence, judge, paid_in, total_difference
from psp_sandbox.testing.explore.points import Point
from psp_sandbox.testing.explore.rest import Rested, Subject, come_to_rest
from psp_sandbox.testing.explore.results import Cause, Difference, PointResult, Verdict
from psp_sandbox.testing.explore.timeline import timeline_of

_SETTLE_SECONDS: Final = 1.0
"""How long an application may work on after it has answered. Its books are read again until they agree, or this long."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.\-]+")

ReadBooks = Callable[[], Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Trial:
    """What a run is judged by."""

    test: str
    points: tuple[Point, ...]
    baseline: Evidence | None
    read_books: ReadBooks | None
    names: Names
    worlds: Path
    """Where the worlds of findings are saved."""
    repeat: str
    began: float
    """When the run began, of the monotonic clock."""


def conclude(trial: Trial, subject: Subject, failure: str | None) -> tuple[PointResult, Evidence]:
    """Let the world come to rest, and return the result with the evidence."""
    fault_ids = tuple(subject.fault_ids)
    try:
        rested = come_to_rest(subject, trial.points)
        found = _differences(trial, subject, rested.payouts)
        evidence = _evidence(trial, rested, found, failure)
    except Exception as error:  # the user's books and restart may raise anything
        evidence = Evidence(failure, None, (), (), paid_in(()), trial.read_books is not None, _problem(error))
    result = judge(evidence, trial.baseline)
    if result[0] in (Verdict.WRONG, Verdict.UNSETTLED):
        return _explained(trial, subject, evidence, result, fault_ids), evidence
    return _point_result(trial, evidence, result), evidence


def _problem(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"The world did not come to rest, or the books could not be read: {type(error).__name__}: {lines[0][:300]}"


def _differences(trial: Trial, subject: Subject, payouts: Sequence[Paid]) -> tuple[Difference, ...]:
    if trial.read_books is None:
        return ()

    def is_foreign(paid: Paid) -> bool:
        return subject.client.payouts.timeline(paid.id)[0].actor != subject.app_key_id

    deadline = time.monotonic() + _SETTLE_SECONDS
    pause = 0.02
    while found := differences(trial.read_books(), payouts, is_foreign):
        if time.monotonic() > deadline:
            return found
        time.sleep(pause)
        pause *= 2
    return ()


def _evidence(trial: Trial, rested: Rested, found: tuple[Difference, ...], failure: str | None) -> Evidence:
    evidence = Evidence(failure, rested.missed, found, rested.unsettled, paid_in(rested.payouts), trial.read_books is not None)
    if found or rested.missed is not None:
        return evidence
    return replace(evidence, differences=total_difference(evidence, trial.baseline, trial.points))


def _name(points: Sequence[Point]) -> str:
    return "+".join(point.name for point in points)


def _explained(
    trial: Trial, subject: Subject, evidence: Evidence, result: tuple[Verdict, str | None], fault_ids: Sequence[str]
) -> PointResult:
    try:
        content = send(subject.client, "GET", "/sandbox/v1/world").content
    except PspError:
        return _point_result(trial, evidence, result)
    bundle = json.loads(content)
    path = trial.worlds / f"{_UNSAFE.sub('-', f'{trial.test}--{_name(trial.points)}').strip('-')[-180:]}.psp-world.json"
    path.write_bytes(content)
    calls = [call for call in bundle["journal"]["calls"] if call["api_key_id"] == subject.app_key_id]
    if result[0] is Verdict.UNSETTLED:
        cause = Cause.NOT_ACKNOWLEDGED if evidence.unsettled else Cause.UNKNOWN
    else:
        cause = likely_cause(trial.points, evidence.differences, calls, fault_ids, trial.names)
    return _point_result(
        trial,
        evidence,
        result,
        cause=cause,
        cure=cure(cause),
        bundle=path.name,
        timeline=timeline_of(bundle, subject.app_key_id),
    )


def _point_result(trial: Trial, evidence: Evidence, result: tuple[Verdict, str | None], **more: Any) -> PointResult:
    first, *others = trial.points
    return PointResult(
        test=trial.test,
        at=first.at,
        place=first.place,
        kind=first.kind,
        verdict=result[0],
        reason=result[1],
        differences=evidence.differences,
        repeat=trial.repeat,
        seconds=round(time.monotonic() - trial.began, 3),
        with_points=tuple(point.name for point in others),
        **more,
    )


def evidence_to_json(evidence: Evidence) -> Mapping[str, Any]:
    """Return what a baseline's evidence is compared by, as JSON."""
    return {"paid": str(evidence.paid), "unsettled": list(evidence.unsettled), "has_books": evidence.has_books}


def evidence_from_json(stored: Mapping[str, Any]) -> Evidence:
    """Return a baseline's evidence from the JSON of `evidence_to_json`."""
    return Evidence(None, None, (), tuple(stored["unsettled"]), Decimal(stored["paid"]), stored["has_books"])
