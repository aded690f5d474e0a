"""A merchant's own scenarios as they are stored. Pure."""

from functools import lru_cache

import msgspec

from sandbox.domain.scenario_engine import Scenario, Step, read_match, read_steps

# A rule is read by every unit of work, and changes hardly ever.


@lru_cache(maxsize=4096)
def stored_rule(rule_id: str, name: str, match: str, steps: str) -> Scenario:
    """A rule from the JSON of its match and its steps."""
    return Scenario(name, read_match(msgspec.json.decode(match)), stored_steps(steps), rule_id, steps)


@lru_cache(maxsize=4096)
def stored_steps(steps: str) -> tuple[Step, ...]:
    """Steps from their JSON."""
    return read_steps(msgspec.json.decode(steps))
