"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault. `remaining` is the number of hits left (null: unlimited); `matches` counts all matches, hits or not."""

    id: str
    target: str
    kind: str
    match: dict[str, str]
    parameters: dict[str, float]
    probability: float
    count: int | None
    seed: int | None
    matches: int
    hits: int
    remaining: int | None
    expires_at: datetime | None
    created_at: datetime
