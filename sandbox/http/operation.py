"""Declare API operations. Each operation's route, checks and OpenAPI entry are derived from its declaration.

A slice decorates the methods of its service with `get`, `post`, `put`, `patch` or `delete`; `operations_of` collects them.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol, TypeVar, get_args, get_origin

import msgspec

from sandbox.http.body import Check
from sandbox.http.paging import DEFAULT_LIMIT, MAX_LIMIT, window

JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data"

Access = Literal["public", "member", "admin", "operator"]
"""The callers of an operation: anyone, any of a merchant's API keys, its admin keys only, or the sandbox's operator."""

PARTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "request": lambda request: request,
    "context": lambda request: request.context,
    "merchant_id": lambda request: request.merchant_id,
    "query": lambda request: request.query,
    "window": lambda request: window(request.query),
    "body": lambda request: request.body,
}
"""Parameter of a handler → what it gets from the request (`Request`)."""
H = TypeVar("H", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter, with its JSON schema."""

    name: str
    description: str
    schema: Mapping[str, Any]


class Form(Protocol):
    """A request body parsed from a stream."""

    @property
    def digest(self) -> bytes:
        """Digest that identifies the body for idempotency."""


async def _unbound(*_: Any, **__: Any) -> Any:
    raise TypeError("this operation is not bound to an object; see operations_of")


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """An operation's inputs, responses and requirements. Used as a decorator on the method that does it.

    The method gets what its parameters name: path parameters, the decoded `body`, the `request` or a part of it (PARTS). An id
    in the path is annotated as `Uuid`, which is both its check and its documentation. The method returns a CommandResult, a
    plain value (sent with the first status of `responses`) or an ASGI response.
    """

    method: str
    path: str
    """Path parameters are in braces: `/api/v1/payouts/{payout_id}`. `{name:path}` matches the rest of the path."""
    summary: str
    responses: Mapping[int, Any]
    """Status → type of the response body (None: no body)."""
    body: Any = None
    """The type of the request's JSON body, or of the form that `receive` reads."""
    description: str = ""
    errors: Sequence[str] = ()
    """Codes of `sandbox.domain.errors.CODES`, in addition to those implied by its access, path and body."""
    query: Sequence[Parameter] = ()
    """The query parameters. Unknown ones are rejected, except by public operations, which ignore them."""
    access: Access = "member"
    example: Any = None
    """An example request body."""
    links: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Link name → (operation id, the path parameter to fill with the response's `id`)."""
    media_type: str = JSON
    """The media type of responses that are not problems."""
    dialect: str = ""
    """The dialect that it belongs to; empty for the sandbox's own API. A dialect ignores unknown query parameters, and has none
    of our idempotency keys."""
    is_documented: bool = True
    """Whether the OpenAPI document includes it; HTML pages are excluded."""
    key_rate_limit: int | None = None
    """Maximum requests per API key in any 60 seconds; None for no limit."""
    check: Callable[..., Sequence[tuple[str, str]]] | None = None
    """A function of a body's fields, or a method of the same class, called for an invalid body. For the fields that match the
    schema, returns the errors that a schema cannot express."""
    receive: Callable[[Any], Awaitable[Form]] | None = None
    """Parses the body, as it arrives, in place of the decoder of JSON bodies."""
    received_media_type: str = MULTIPART
    """The media type of the body that `receive` parses."""
    takes_turns: bool = False
    """Whether it keeps the database or the event loop busy for long. Few such requests run at a time; merchants take turns."""
    may_wait: bool = False
    """Whether a response can be held until something happens. If the key is revoked meanwhile, it is INVALID_API_KEY."""
    body_limit: int | None = None
    """The body's maximum size in bytes; None for the application's default."""
    psp: str = ""
    """The words of the `psp` command that makes the call, with what does not follow from the call (`psp_lines.py`). Several
    lines are for different calls. If `sandbox/cli` has no such command, it is derived from this declaration."""
    columns: str = ""
    """The fields that the derived command shows as a table, separated by spaces; empty if the response is not a list."""
    id: str = ""
    """The operation's id; by default the name of the decorated method."""
    handler: Callable[..., Awaitable[Any]] = _unbound

    def __call__(self, handler: H) -> H:
        """Declare a method."""
        handler.__operation__ = self  # type: ignore[attr-defined]  # functions accept any attribute
        return handler

    @property
    def idempotency(self) -> Literal["required", "optional", "none"]:
        """Whether a request has an idempotency key: only one that writes, and under /api/v1, it must unless it deletes."""
        if self.method == "GET" or self.access == "public" or self.dialect:
            return "none"
        return "required" if self.path.startswith("/api/v1/") and self.method != "DELETE" else "optional"

    @property
    def status(self) -> int:
        """The status that is sent if the handler returns a plain value."""
        first: int = next(iter(self.responses))
        return first

    @property
    def requires_body(self) -> bool:
        """Whether a request without a body is rejected. If all fields of the body are optional, no body means `{}`."""
        if self.body is None:
            return False
        if not (isinstance(self.body, type) and issubclass(self.body, msgspec.Struct)):
            return True
        return any(field.required for field in msgspec.structs.fields(self.body)) or bool(self.check and self.check({}))

    @property
    def body_media_type(self) -> str:
        """The media type of the request's body."""
        return JSON if self.receive is None else self.received_media_type

    @property
    def path_parameters(self) -> list[str]:
        """The names of the path's parameters."""
        return [part[1:-1].removesuffix(":path") for part in self.path.split("/") if part.startswith("{")]

    @property
    def path_types(self) -> dict[str, Any]:
        """The types of the path's parameters, from the handler's annotations. They are checked before the handler runs."""
        given = inspect.signature(self.handler).parameters
        return {name: given[name].annotation for name in self.path_parameters if name in given}


get: Final = functools.partial(Operation, "GET")
post: Final = functools.partial(Operation, "POST")
put: Final = functools.partial(Operation, "PUT")
patch: Final = functools.partial(Operation, "PATCH")
delete: Final = functools.partial(Operation, "DELETE")


def operations_of(*services: object) -> list[Operation]:
    """Return the operations declared on these objects, bound, in source order.

    Raises TypeError if a handler's parameters do not match its declaration.
    """
    found = []
    for service in services:
        for name, member in vars(type(service)).items():
            declared = getattr(member, "__operation__", None)
            if isinstance(declared, Operation):
                operation = replace(
                    declared, id=declared.id or name, handler=getattr(service, name), check=_check_of(declared, service)
                )
                _require_matching_parameters(operation)
                found.append(operation)
    return found


def _check_of(operation: Operation, service: object) -> Check | None:
    check = operation.check
    takes_self = check is not None and len(inspect.signature(check).parameters) > 1
    return functools.partial(check, service) if check is not None and takes_self else check


def request_parameters(operation: Operation) -> list[str]:
    """Return the parameters of the handler that are parts of the request, other than path parameters."""
    given = inspect.signature(operation.handler).parameters
    return [name for name in given if name in PARTS and name not in operation.path_parameters]


def _require_matching_parameters(operation: Operation) -> None:
    given = list(inspect.signature(operation.handler).parameters)
    known = [name for name in PARTS if name != "body" or operation.body is not None]
    if not set(operation.path_parameters) <= set(given) <= {*operation.path_parameters, *known}:
        required = ", ".join([*operation.path_parameters, *known])
        raise TypeError(f"{operation.id} has parameters {', '.join(given)}; its declaration requires {required}")


def parameter(name: str, description: str, **schema: Any) -> Parameter:
    """Return a query parameter. The keywords are its JSON schema; the default is a string."""
    return Parameter(name, description, schema or {"type": "string"})


def list_of_choices(choices: Sequence[str]) -> dict[str, Any]:
    """Return the schema of a parameter that accepts one or more of the choices, comma-separated."""
    return {"type": "array", "items": {"type": "string", "enum": list(choices)}, "minItems": 1, "maxItems": len(choices)}


def page_item(kind: Any) -> Any:
    """Return X if the type is `list[X]`, which declares a page of X; None for any other type."""
    return get_args(kind)[0] if get_origin(kind) is list else None


def either(start: str, *choices: str, rest: str = "") -> str:
    """Return one line of a `psp` command for each choice."""
    return "\n".join(f"{start} {choice} {rest}" for choice in choices)


LIMIT = parameter("limit", "The maximum number of results.", type="integer", minimum=1, maximum=MAX_LIMIT,
                  default=DEFAULT_LIMIT)  # fmt: skip
CURSOR = parameter("cursor", "The next_cursor of the previous page.", type="string", minLength=1, maxLength=200)
CREATED_FROM = parameter("created_from", "Only items created at or after this time.", type="string", format="date-time")
CREATED_TO = parameter("created_to", "Only items created before this time.", type="string", format="date-time")
PAGE: Final = (LIMIT, CURSOR)
"""The parameters of a list."""
DATED_PAGE: Final = (*PAGE, CREATED_FROM, CREATED_TO)
"""The parameters of a list whose items have a time."""
