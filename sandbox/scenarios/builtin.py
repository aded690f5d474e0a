"""Scenarios from files: the sandbox's own, out of the package, and a merchant's, from wherever it keeps them."""

import functools
from importlib import resources
from pathlib import Path

from sandbox.domain.directory import Directory
from sandbox.domain.scenario_engine import Catalogue, parse_catalogue
from sandbox.scenarios.rules import RuleBody, parse_rules


@functools.cache
def load_catalogue() -> Catalogue:
    """The catalogue of `catalogue.toml`."""
    return parse_catalogue(resources.files("sandbox.scenarios").joinpath("catalogue.toml").read_text("utf-8"))


def read_rules(path: Path, directory: Directory) -> list[RuleBody]:
    """A merchant's own scenarios from a TOML file. Raises ValueError with a sentence that says where it is wrong."""
    try:
        return parse_rules(path.read_text("utf-8"), directory)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None
