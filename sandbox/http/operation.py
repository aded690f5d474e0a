"""An operation of the API, declared once as a value: its route, its checks and its document come from it.

The methods of a slice's API class carry their declaration as a decorator; `operations_of` collects them.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol, TypeVar, get_args, get_origin

import msgspec

from sandbox.domain.body import Check
from sandbox.domain.errors import Problem
from sandbox.http.paging import DEFAULT_LIMIT, MAX_LIMIT

JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data"

Access = Literal["public", "member", "admin", "operator"]
"""Who may call an operation: anyone, any key of a merchant, a merchant's admin keys, or the sandbox's operator."""

H = TypeVar("H", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter, with its JSON schema."""

    name: str
    description: str
    schema: Mapping[str, Any]


class Form(Protocol):
    """A body that was received while it arrived."""

    @property
    def digest(self) -> bytes:
        """What makes two bodies the same under one idempotency key."""


async def _unbound(*_: Any, **__: Any) -> Any:
    raise TypeError("this operation belongs to no object yet: see operations_of")


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """What an operation takes, answers and demands. As a decorator it declares the method of an API class below it.

    The handler takes the request, path parameters as keywords, and the decoded body if it has a parameter `body`. It returns a
    CommandResult, a value (sent with the first status of `answers`) or an ASGI response.
    """

    method: str
    path: str
    """With path parameters in braces: `/api/v1/payouts/{payout_id}`."""
    summary: str
    responses: Mapping[int, Any]
    """Status → the type of the body (None: no body)."""
    body: Any = None
    """The type of the request's JSON body, or of the form that `receive` reads."""
    optional_body: bool = False
    """Whether no body means the same as `{}`. A body without members is always optional."""
    description: str = ""
    errors: Sequence[str] = ()
    """Codes of `sandbox.domain.errors.CODES` beyond those that every operation with its access and body has."""
    query: Sequence[Parameter] = ()
    """The query parameters. All others are refused, except by public operations, which ignore them."""
    access: Access = "member"
    idempotency: Literal["required", "optional", "none"] = "none"
    example: Any = None
    """An example of the request's body."""
    links: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name → (operation id, the path parameter that the answer's id becomes)."""
    path_schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Path parameter → its JSON schema, where it is not a UUID."""
    media_type: str = JSON
    """The media type of answers that are not problems."""
    is_documented: bool = True
    """Whether the document has it. Pages for people are not in it."""
    key_rate_limit: int | None = None
    """Requests that a key may make in any 60 seconds; None for no limit."""
    check: Callable[..., Sequence[tuple[str, str]]] | None = None
    """A method of the API class, asked about a refused body: its valid members → what else is wrong with them."""
    explain: Callable[[Problem], Problem] | None = None
    """Rewords the refusal of a body."""
    receive: Callable[[Any], Awaitable[Form]] | None = None
    """Reads the multipart body of a request while it arrives; None for JSON."""
    body_limit: int | None = None
    """The body's maximum size in bytes; None for the application's."""
    id: str = ""
    """The name of the method that it declares."""
    handler: Callable[..., Awaitable[Any]] = _unbound

    def __call__(self, handler: H) -> H:
        """Declare a method of an API class."""
        handler.__operation__ = self  # type: ignore[attr-defined]  # functions take attributes; their type does not say so
        return handler

    @property
    def status(self) -> int:
        """The status of an answer that is a plain value."""
        first: int = next(iter(self.responses))
        return first

    @property
    def requires_body(self) -> bool:
        """Whether a request without a body is refused."""
        if self.body is None or self.optional_body:
            return False
        is_struct = isinstance(self.body, type) and issubclass(self.body, msgspec.Struct)
        return not is_struct or bool(self.body.__struct_fields__)

    @property
    def body_media_type(self) -> str:
        """The media type of the request's body."""
        return JSON if self.receive is None else MULTIPART

    @property
    def path_parameters(self) -> list[str]:
        """The names of the path's parameters."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


get: Final = functools.partial(Operation, "GET")
post: Final = functools.partial(Operation, "POST")
put: Final = functools.partial(Operation, "PUT")
patch: Final = functools.partial(Operation, "PATCH")
delete: Final = functools.partial(Operation, "DELETE")


def operations_of(*apis: object) -> list[Operation]:
    """The operations that the methods of these objects declare, bound to them, in the order of the source.

    Raises TypeError for a handler whose parameters are not those of its declaration.
    """
    found = []
    for api in apis:
        for name, member in vars(type(api)).items():
            declared = getattr(member, "__operation__", None)
            if isinstance(declared, Operation):
                check: Check | None = None if declared.check is None else functools.partial(declared.check, api)
                operation = replace(declared, id=name, handler=getattr(api, name), check=check)
                _require_matching_parameters(operation)
                found.append(operation)
    return found


def takes_body(operation: Operation) -> bool:
    """Whether the handler wants the decoded body."""
    return "body" in inspect.signature(operation.handler).parameters


def _require_matching_parameters(operation: Operation) -> None:
    wanted = ["request", *(["body"] if takes_body(operation) else []), *operation.path_parameters]
    given = list(inspect.signature(operation.handler).parameters)
    if sorted(given) != sorted(wanted) or given[0] != "request" or (takes_body(operation) and operation.body is None):
        raise TypeError(f"{operation.id} takes {', '.join(given)}; its declaration says {', '.join(wanted)}")


def parameter(name: str, description: str, **schema: Any) -> Parameter:
    """A query parameter; the rest is its JSON schema."""
    return Parameter(name, description, schema or {"type": "string"})


def list_of_choices(choices: Sequence[str]) -> dict[str, Any]:
    """The schema of a parameter that takes one or more of the choices, comma-separated."""
    return {"type": "array", "items": {"type": "string", "enum": list(choices)}, "minItems": 1, "maxItems": len(choices)}


def page_item(kind: Any) -> Any:
    """X where the type is `list[X]`, which stands for a page of X; None for every other type."""
    return get_args(kind)[0] if get_origin(kind) is list else None


LIMIT = parameter("limit", "The maximum number of results.", type="integer", minimum=1, maximum=MAX_LIMIT,
                  default=DEFAULT_LIMIT)  # fmt: skip
CURSOR = parameter("cursor", "The next_cursor of the previous page.", type="string", minLength=1, maxLength=200)
CREATED_FROM = parameter("created_from", "Only items created at or after this time.", type="string", format="date-time")
CREATED_TO = parameter("created_to", "Only items created before this time.", type="string", format="date-time")
