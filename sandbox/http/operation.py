"""What the OpenAPI document says of an operation, written beside its handler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter, with its JSON schema."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """An operation of the API as its document describes it."""

    summary: str
    answers: Mapping[int, Any]
    """Status → the type of the body (None: no body)."""
    body: Any = None
    """The type of the request's JSON body."""
    optional_body: bool = False
    """Whether no body at all is as good as one that says nothing."""
    description: str = ""
    errors: Sequence[str] = ()
    """Codes of `sandbox.domain.errors.CODES` beyond those that every operation with its security and body has."""
    query: Sequence[Parameter] = ()
    security: Literal["key", "admin-key", "operator", "none"] = "key"
    idempotency: Literal["required", "optional", "none"] = "none"
    example: Any = None
    """An example of the request's body."""
    links: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name → (operation id, the path parameter that the answer's id becomes)."""
    path: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Path parameter → its JSON schema, where it is not a UUID."""
    raw_media_type: str = "application/json"

    def __deepcopy__(self, memo: object) -> "Operation":
        """Itself: Litestar copies what it registers, and a type with bounds cannot be copied."""
        return self


def parameter(name: str, description: str, **schema: Any) -> Parameter:
    """A query parameter; the rest is its JSON schema."""
    return Parameter(name, description, schema or {"type": "string"})


def several(choices: Sequence[str]) -> dict[str, Any]:
    """The schema of a parameter that takes one or more of the choices, comma-separated."""
    return {"type": "array", "items": {"type": "string", "enum": list(choices)}, "minItems": 1, "maxItems": len(choices)}


def page_item(kind: Any) -> Any:
    """X where the type is `list[X]`, which stands for a page of X; None for every other type."""
    return get_args(kind)[0] if get_origin(kind) is list else None


LIMIT = parameter("limit", "The maximum number of results.", type="integer", minimum=1, maximum=100, default=20)
CURSOR = parameter("cursor", "The next_cursor of the previous page.", type="string", minLength=1, maxLength=200)
CREATED_FROM = parameter("created_from", "Only items created at or after this time.", type="string", format="date-time")
CREATED_TO = parameter("created_to", "Only items created before this time.", type="string", format="date-time")
