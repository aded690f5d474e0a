"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A node of a distributed database."""

    node: str
    status: Literal["down", "up"]
    has_merchants: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The response of `/health/ready` if requests can be served."""

    status: Literal["degraded", "ready"]
    nodes: list[NodeStatus] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The response of `/`."""

    name: str
    version: str
    links: dict[str, str]
