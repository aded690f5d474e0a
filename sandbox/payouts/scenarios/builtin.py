"""Read scenarios from files: the built-in ones from the package, and a merchant's own from a given path."""

import functools
from importlib import resources
from pathlib import Path

from sandbox.domain.scenario_engine import Catalogue, parse_catalogue
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.scenarios.rules import RuleBody, parse_rules


@functools.cache
def load_catalogue() -> Catalogue:
    """Return the built-in scenarios of `catalogue.toml`. Only the first call reads the file."""
    return parse_catalogue(resources.files("sandbox.payouts.scenarios").joinpath("catalogue.toml").read_text("utf-8"))


def read_rules(path: Path, directory: Directory) -> list[RuleBody]:
    """Return a merchant's own scenarios from a TOML file. Raises ValueError, whose message names the error and its place."""
    try:
        return parse_rules(path.read_text("utf-8"), directory)
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None
