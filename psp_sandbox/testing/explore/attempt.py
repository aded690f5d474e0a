"""One run of a test while it is explored: what it recorded, and why the test cannot be explored."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from psp_sandbox.testing.connections import send
from psp_sandbox.testing.explore.judge import Evidence
from psp_sandbox.testing.explore.points import Point, Recording, recording_of
from psp_sandbox.testing.explore.rest import Subject
from psp_sandbox.testing.explore.results import PointResult
from psp_sandbox.testing.world import World


@dataclass(slots=True)
class Attempt:
    """One run of a test, as far as it has come."""

    points: tuple[Point, ...]
    baseline: Evidence | None
    records: bool
    """Whether the calls and events are recorded, as in a baseline."""
    began: float = field(default_factory=time.monotonic)
    subject: Subject | None = None
    key_id: str = ""
    failure: str | None = None
    recording: Recording | None = None
    can_restart: bool = False
    result: PointResult | None = None
    evidence: Evidence | None = None
    problem: str | None = None
    """Why the run could not be judged."""


def record(world: World, attempt: Attempt) -> Recording:
    """Let the world's due work run, and return the calls and events of the application. Raises PspError."""
    world.drain()
    bundle = send(world.client, "GET", "/sandbox/v1/world").json()
    recording = recording_of(bundle, attempt.key_id)
    # Without an application, the events arrive at the plugin's own endpoint, and nobody acts on them.
    return (
        recording
        if world.has_app
        else replace(recording, events=(), statuses=() if not recording.calls else recording.statuses)
    )


def why_left_out(attempt: Attempt, reports: Sequence[pytest.TestReport]) -> str | None:
    """Return why a test cannot be explored, after a run of it without faults; None if it can be."""
    for one in reports:
        if one.skipped:
            return "It is skipped."
        if one.failed:
            return f"It fails without any fault: {reason_of(one)}"
    if attempt.problem is not None:
        return f"It could not be judged: {attempt.problem}"
    if attempt.recording is None or attempt.evidence is None:
        return "It does not use the sandbox."
    if attempt.evidence.problem is not None:
        return attempt.evidence.problem
    if not attempt.recording.calls and not attempt.recording.events:
        return "No application calls the sandbox in it, or receives an event."
    return None


def why_unstable(first: Attempt, second: Attempt) -> str | None:
    """Return why the points of a test have no stable names, if two runs without faults differ."""
    assert first.recording is not None
    assert second.recording is not None
    if first.recording.signature == second.recording.signature:
        return None
    return "Its calls or events differ between two runs without faults, so no point has a stable name."


def one_line(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def reason_of(failed: pytest.TestReport) -> str:
    """Return the first line of what a phase of a test failed with."""
    crash = getattr(failed.longrepr, "reprcrash", None)
    text = str(crash.message if crash is not None else failed.longrepr).strip().splitlines()
    return text[0][:300] if text else "it gave no reason"
