"""Faults that a merchant asks for: what they match, and what chance says of them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import exp
from statistics import NormalDist
from typing import Final

import msgspec

from sandbox.domain.scenario_engine import draw

FAULTED: Final = ("/api/v1/", "/vendor/", "/aggregator/")
"""Where API faults may hit. Not the sandbox's own controls: one can always take a fault away."""
LONGEST_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault as those see it who may be hit. All that `match` names must hold; patterns know `*` and `?`."""

    id: str
    kind: str
    match: Mapping[str, str]
    parameters: Mapping[str, float]
    probability: float
    seed: int | None

    def meets_request(self, method: str, path: str) -> bool:
        """Whether an API request is meant, as far as its method and path tell."""
        return self.match.get("method", method) == method and fnmatchcase(path, self.match.get("path", "*"))

    def meets_delivery(self, event_type: str, endpoint_id: str) -> bool:
        """Whether a delivery is meant."""
        wanted = self.match.get("event_type", "*")
        return self.match.get("endpoint_id", endpoint_id) == endpoint_id and fnmatchcase(event_type, wanted)

    def hits(self, draw_key: str) -> bool:
        """Whether a match is a hit. A draw key always draws the same for a seed, or, without one, for the same fault."""
        return self.probability >= 1 or self._draw("hit", draw_key) < self.probability

    def milliseconds(self, counter: int) -> float:
        """How long the counter-th match is to wait: fixed, or with a sigma lognormal around that; at most a minute."""
        sigma = self.parameters.get("sigma", 0.0)
        fixed = self.parameters["milliseconds"]
        if not sigma:
            return fixed
        normal = NormalDist().inv_cdf(max(self._draw("wait", str(counter)), 1e-12))
        return min(fixed * exp(sigma * normal), LONGEST_MS)

    def _draw(self, what: str, draw_key: str) -> float:
        return draw(f"{self.id if self.seed is None else self.seed}:{what}:{draw_key}")


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that hits, and which of its matches it was, from 1."""

    fault: Fault
    counter: int


class FaultNote(msgspec.Struct):
    """A fault that hit, as the journal shows it."""

    id: str
    kind: str
    seed: int | None
    counter: int


def damaged_body(kind: str, body: bytes) -> bytes:
    """What is sent in place of a webhook's body that a fault of this kind hits."""
    if kind == "tampered_body":
        return body[:-1] + b',"tampered":true}'
    return body[: len(body) // 2] if kind == "truncated_body" else body


def note(hit: Hit) -> FaultNote:
    """What the journal says of a hit."""
    return FaultNote(hit.fault.id, hit.fault.kind, hit.fault.seed, hit.counter)


def to_fault(fault_id: str, kind: str, match: str, parameters: str, probability: float, seed: int | None) -> Fault:
    """A fault from its columns."""
    return Fault(fault_id, kind, msgspec.json.decode(match), msgspec.json.decode(parameters), probability, seed)
