"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The response of `/health/ready` if every part is available."""

    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The response of `/`."""

    name: str
    version: str
    links: dict[str, str]
