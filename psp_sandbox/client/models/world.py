"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedEndpoint:
    """A webhook endpoint of an imported world. `secret` is null if the endpoint kept its secret, or signs with
    `public_key`.
    """

    id: str
    url: str
    secret: str | None
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """An imported world: its rows, its clock, and its endpoints, with the secrets of those that got a new one."""

    imported: bool
    rows: int
    now: datetime
    frozen: bool
    endpoints: list[ImportedEndpoint]
