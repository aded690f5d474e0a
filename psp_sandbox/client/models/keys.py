"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key without the key itself."""

    id: str
    role: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A new API key. The key itself is shown only once."""

    id: str
    api_key: str
    role: str
