"""Faults that a merchant injects: which requests and deliveries they match, and whether they hit. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import exp
from statistics import NormalDist
from typing import Final

import msgspec

from sandbox.domain.scenario_engine import draw

FAULT_PATH_PREFIXES: Final = ("/api/v1/", "/vendor/", "/aggregator/")
"""The paths that API faults apply to. The sandbox's own controls are exempt, so a merchant can always remove a fault."""
MAX_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to inject. Every condition in `match` must hold; patterns may use `*` and `?`."""

    id: str
    kind: str
    match: Mapping[str, str]
    parameters: Mapping[str, float | str]
    probability: float
    seed: int | None

    def matches_request(self, method: str, path: str, key_id: str) -> bool:
        """Return whether an API request's method, path and key match."""
        is_caller = self.match.get("api_key_id", key_id) == key_id
        return is_caller and self.match.get("method", method) == method and fnmatchcase(path, self.match.get("path", "*"))

    def matches_delivery(self, event_type: str, endpoint_id: str) -> bool:
        """Return whether a delivery matches."""
        pattern = self.match.get("event_type", "*")
        return self.match.get("endpoint_id", endpoint_id) == endpoint_id and fnmatchcase(event_type, pattern)

    def hits(self, draw_key: str) -> bool:
        """Return whether a match is a hit. This depends only on the draw key and the seed (by default, the fault's id)."""
        return self.probability >= 1 or self._draw("hit", draw_key) < self.probability

    def milliseconds(self, counter: int) -> float:
        """Return the delay of match number `counter`: fixed or, with a sigma, lognormal with that median; at most MAX_MS."""
        sigma = float(self.parameters.get("sigma", 0.0))
        fixed = float(self.parameters["milliseconds"])
        if not sigma:
            return fixed
        normal = NormalDist().inv_cdf(max(self._draw("wait", str(counter)), 1e-12))
        return min(fixed * exp(sigma * normal), MAX_MS)

    def _draw(self, what: str, draw_key: str) -> float:
        return draw(f"{self.id if self.seed is None else self.seed}:{what}:{draw_key}")


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A fault that hits, and the number of the match, counted from 1."""

    fault: Fault
    counter: int


class FaultNote(msgspec.Struct):
    """A fault that hit, as the journal shows it."""

    id: str
    kind: str
    seed: int | None
    counter: int


def damaged_body(kind: str, body: bytes) -> bytes:
    """Return the webhook body to send when a fault of this kind hits."""
    if kind == "tampered_body":
        return body[:-1] + b',"tampered":true}'
    return body[: len(body) // 2] if kind == "truncated_body" else body


def note(hit: InjectedFault) -> FaultNote:
    """Return a hit as the journal shows it."""
    return FaultNote(hit.fault.id, hit.fault.kind, hit.fault.seed, hit.counter)


def to_fault(columns: str) -> Fault:
    """Return a fault from a JSON array of its id, kind, match, parameters, probability and seed."""
    return Fault(*_decode_columns(columns))


_decode_columns: Final = msgspec.json.Decoder(tuple[str, str, dict[str, str], dict[str, float | str], float, int | None]).decode
