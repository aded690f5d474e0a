"""Read a merchant's own scenarios from stored JSON. Pure."""

from functools import lru_cache

import msgspec

from sandbox.domain.scenario_engine import Scenario, Step, read_match, read_steps

# Cached: every unit of work reads the merchant's rules, and they rarely change.


@lru_cache(maxsize=4096)
def stored_rule(rule_id: str, name: str, match: str, steps: str) -> Scenario:
    """Return a rule from the JSON of its match and its steps."""
    return Scenario(name, read_match(msgspec.json.decode(match)), stored_steps(steps), rule_id, steps)


@lru_cache(maxsize=4096)
def stored_steps(steps: str) -> tuple[Step, ...]:
    """Return steps from their JSON."""
    return read_steps(msgspec.json.decode(steps))
