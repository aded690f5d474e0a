"""A call: its request, and the type of its result. Shared by the sync and the async client; does no I/O."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

T = TypeVar("T")
Auth = Literal["merchant", "operator", "none"]
Amount = Decimal | str | int
"""An amount of money in a request. A float cannot hold most amounts exactly, so it is not one of the types."""
FileContent = bytes | str | Path
"""A file to upload: its bytes, its text, or where it is."""


class Omitted(Enum):
    """The type of OMITTED."""

    OMITTED = "omitted"

    def __repr__(self) -> str:
        return "OMITTED"


OMITTED: Final = Omitted.OMITTED
"""The default of a field that may be null: the field is not sent. None is sent as null."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of the API. `result` is the type of its result, `member` the member of the response that has it, if not all.

    A write has an idempotency key, the same for all its tries. `waits` is how many seconds the sandbox may delay the response.
    """

    result: type[T]
    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    file: FileContent | None = None
    member: str | None = None
    idempotency_key: str | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    auth: Auth = "merchant"
    waits: float = 0.0
    media_type: str = "application/json"

    @property
    def is_repeatable(self) -> bool:
        """Whether repeating the call has no second effect."""
        return self.method == "GET" or self.idempotency_key is not None

    def content(self) -> dict[str, Any]:
        """Return the body as arguments for httpx, with its headers.

        Raises ValueError if a time has no time zone, OSError if the file cannot be read.
        """
        headers = {name: value for name, value in self.headers.items() if value is not None}
        if self.idempotency_key is not None:
            headers["X-IDEMPOTENCY-KEY"] = self.idempotency_key
        if self.file is not None:
            content = self.file.read_bytes() if isinstance(self.file, Path) else self.file
            return {"files": {"file": ("file.csv", content, "text/csv")}, "headers": headers}
        if self.body is None:
            return {"headers": headers}
        headers["Content-Type"] = self.media_type
        return {"content": json.dumps(self.body, default=_plain).encode(), "headers": headers}


def new_key() -> str:
    """Return a new idempotency key."""
    return str(uuid.uuid4())


def given(optional: Mapping[str, Any], nullable: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields to send: those of `optional` that are not None, and those of `nullable` that are not OMITTED."""
    sent = {name: value for name, value in optional.items() if value is not None}
    sent.update({name: value for name, value in (nullable or {}).items() if value is not OMITTED})
    return sent


def query(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return query parameters as text, without those that are None. Lists become comma-separated, mappings `name[key]`."""
    found: dict[str, str] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            found.update({f"{name}[{key}]": str(item) for key, item in value.items()})
        elif value is not None:
            values = value if isinstance(value, list | tuple | set | frozenset) else [value]
            found[name] = ",".join(_text(item) for item in values)
    return found


def segment(value: str) -> str:
    """Return an id as a segment of a path. Raises ValueError if it is empty or dots: it would name another resource."""
    if not value or value in {".", ".."}:
        raise ValueError(f"{value!r} is not an id")
    return quote(value, safe="")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else str(_plain(value))


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it. Raises ValueError for a time without a time zone, TypeError for an unknown type."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone; use datetime.now(UTC) or .replace(tzinfo=UTC)")
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{value!r} cannot be sent as JSON")
