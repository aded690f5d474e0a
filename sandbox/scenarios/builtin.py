"""The scenarios that come with the sandbox, read from the package's own data file."""

import functools
from importlib import resources

from sandbox.scenarios.engine import Catalogue, parse_catalogue


@functools.cache
def load_catalogue() -> Catalogue:
    """The catalogue of `catalogue.toml`."""
    return parse_catalogue(resources.files("sandbox.scenarios").joinpath("catalogue.toml").read_text("utf-8"))
