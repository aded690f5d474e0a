"""The order in which runs are tried: lost answers first, then breadth over all tests, then pairs."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, zip_longest
from typing import Any, Final

from psp_sandbox.testing.explore.points import REST, Point
from psp_sandbox.testing.explore.results import At, Kind

MAX_PAIRS: Final = 20
"""Maximum number of pairs for each test. There are hundreds, so the seed chooses which."""
_JOINT: Final = " + "


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a test, with one point or a pair."""

    test: str
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """The name within the test."""
        return _JOINT.join(point.name for point in self.points)


def schedule(plans: Mapping[str, Sequence[Point]], depth: int, seed: int) -> list[Run]:
    """Return all runs of a depth. `plans` are the points by test, in the order of the tests."""
    singles = [[Run(test, (point,)) for point in points] for test, points in plans.items()]
    lost = [run for runs in singles for run in runs if _is_lost_answer(run)]
    others = [[run for run in runs if not _is_lost_answer(run)] for runs in singles]
    pairs = [_pairs(test, points, seed) for test, points in plans.items()] if depth > 1 else []
    return [*lost, *_in_turn(others), *_in_turn(pairs)]


def _is_lost_answer(run: Run) -> bool:
    return run.points[0].at is At.WRITE and run.points[0].kind is Kind.ANSWER_LOST


def _in_turn(groups: Sequence[Sequence[Run]]) -> Iterator[Run]:
    """Yield one run of each test, then the second of each, and so on."""
    return (run for row in zip_longest(*groups) for run in row if run is not None)


def _pairs(test: str, points: Sequence[Point], seed: int) -> list[Run]:
    # At one place, only the first fault would hit. A pair with the passing of time does the same as its other point.
    found = [Run(test, pair) for pair in combinations(points, 2) if pair[0].place != pair[1].place and REST not in pair]
    draw = random.Random(f"{seed}:{test}")  # noqa: S311 - not a secret
    draw.shuffle(found)
    # A later action of an operator or the bank acts on what a fault has left. Few pairs have one, so half of the places
    # are for these.
    later = [run for run in found if any(point.at is At.STATUS for point in run.points)][: MAX_PAIRS // 2]
    return [*later, *(run for run in found if run not in later)][:MAX_PAIRS]


def named(points: Sequence[Point], name: str) -> tuple[Point, ...] | None:
    """Return the points that a name such as `POST /payouts#2:answer_lost` means, or None if there are none."""
    by_name = {point.name: point for point in points}
    wanted = [part.strip() for part in name.split(_JOINT)]
    return tuple(by_name[one] for one in wanted) if all(one in by_name for one in wanted) else None


def point_to_json(point: Point) -> dict[str, Any]:
    """Return a point as JSON."""
    return asdict(point)


def point_from_json(stored: Mapping[str, Any]) -> Point:
    """Return a point from the JSON of `point_to_json`."""
    typed = {"at": At(stored["at"]), "kind": Kind(stored["kind"]), "match": tuple(stored["match"])}
    return Point(**{**stored, **typed})
