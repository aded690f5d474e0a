"""Define a tool as a function of a client and further arguments, which the protocol's server calls."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field, PrivateAttr, create_model

from psp_sandbox.client import AsyncClient
from sandbox.cli.mcp_server.access import Access, Keys
from sandbox.cli.mcp_server.results import Result, failed, plain, succeeded

T = TypeVar("T")
_SECONDS: Final = 90.0
"""The timeout of a tool, which may call the API several times."""
_MOST_IN_LIST: Final = 50

World = Annotated[
    str | None,
    Field(description="The id of a world from create_world. Default: the merchant whose API key is configured."),
]
Limit = Annotated[int, Field(ge=1, le=_MOST_IN_LIST, description="The maximum number of results.")]
PayoutId = Annotated[str, Field(description="The payout's id, from create_payout or list_payouts.")]
Scope = Literal["merchant", "operator"]


@dataclass(frozen=True, slots=True)
class Calling:
    """The call of a tool: its client, who calls, and the worlds that the caller may use."""

    psp: AsyncClient
    keys: Keys
    access: Access


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool. `scope` says whose key it needs; `is_local` tools work on the server's files, so only over stdio."""

    function: Callable[..., Awaitable[Result]]
    title: str
    annotations: ToolAnnotations
    scope: Scope
    is_local: bool

    @property
    def name(self) -> str:
        """The name that agents call it by."""
        return self.function.__name__


def tool(
    title: str, *, reads: bool = False, destroys: bool = False, scope: Scope = "merchant", local: bool = False
) -> Callable[[Callable[..., Awaitable[Result]]], Definition]:
    """Return a decorator that makes a tool of a function of a Calling and the tool's own arguments.

    The function's name, docstring and annotations are what agents see. `reads` says that it changes nothing, `destroys` that
    it deletes something.
    """
    hints = ToolAnnotations(title=title, read_only_hint=reads, destructive_hint=destroys, open_world_hint=False)
    return lambda function: Definition(function, title, hints, scope, local)


class ServedTool(Tool):
    """A tool of the protocol's server. Every failure becomes a tool error, in the form that `results` defines."""

    _definition: Definition = PrivateAttr()
    _access: Access = PrivateAttr()

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> CallToolResult:
        """Check the arguments, and call the tool's function with the rights of the caller."""
        secrets: set[str] = set()
        try:
            keys = self._access.keys(context.headers)
            secrets = self._access.secrets(keys, arguments.get("world"))
            given = self.fn_metadata.validate_arguments(arguments)
            if self._definition.scope == "operator":
                client = self._access.operator(keys)
            else:
                client = self._access.merchant(keys, given.pop("world", None))
            async with asyncio.timeout(_SECONDS), client:
                result = await self._definition.function(Calling(client, keys, self._access), **given)
            return succeeded(result, secrets)
        except Exception as error:
            failure = failed(error, secrets)
            if failure is None:
                # The server logs it, and the agent sees this text only.
                raise UnexpectedToolError(f"Error executing tool {self.name}") from error
            return failure


def serve(definition: Definition, access: Access, *, has_worlds: bool) -> ServedTool:
    """Return a tool for the protocol's server. Without `has_worlds`, it has no argument for another world."""
    _calling, *own = inspect.signature(definition.function).parameters.values()
    if has_worlds and definition.scope == "merchant":
        own.append(inspect.Parameter("world", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=World))

    async def shown() -> CallToolResult:
        raise NotImplementedError  # `run` calls the tool's function; this only has its signature

    shown.__signature__ = inspect.Signature(own, return_annotation=CallToolResult)  # type: ignore[attr-defined] # functions accept any attribute
    shown.__name__ = definition.name
    served = ServedTool.from_function(
        shown,
        title=definition.title,
        description=_paragraphs(definition.function.__doc__ or ""),
        annotations=definition.annotations,
    )
    assert isinstance(served, ServedTool)
    served._definition, served._access = definition, access

    # Refuse unknown arguments: a misspelt one would silently change the effect of the call.
    strict = create_model("Arguments", __base__=served.fn_metadata.arg_model, __cls_kwargs__={"extra": "forbid"})
    served.fn_metadata.arg_model = strict
    served.parameters = _simple(strict.model_json_schema(by_alias=True))
    return served


def _paragraphs(docstring: str) -> str:
    """Return a docstring without the line breaks inside of its paragraphs."""
    return "\n\n".join(" ".join(text.split()) for text in inspect.cleandoc(docstring).split("\n\n"))


def _simple(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of arguments without titles, and without null for optional ones: agents need neither."""
    properties = {}
    for name, found in schema["properties"].items():
        shown = {key: value for key, value in found.items() if key != "title"}
        choices = [choice for choice in shown.get("anyOf", ()) if choice != {"type": "null"}]
        if len(choices) == 1 and shown.get("default", ...) is None:
            shown = choices[0] | {key: value for key, value in shown.items() if key not in ("anyOf", "default")}
        properties[name] = shown
    return {key: value for key, value in schema.items() if key != "title"} | {"properties": properties}


async def first(items: AsyncIterator[T], limit: int) -> dict[str, Any]:
    """Return the first items of a list as JSON, and whether there are more. Request `limit + 1`, so that one page suffices."""
    found: list[Any] = []
    async for item in items:
        if len(found) == limit:
            return {"items": found, "has_more": True}
        found.append(plain(item))
    return {"items": found, "has_more": False}


def count(found: dict[str, Any], noun: str) -> str:
    """Return a sentence about a list, such as "2 payouts, and there are more"."""
    number = len(found["items"])
    more = ", and there are more: use a filter or a larger limit" if found["has_more"] else ""
    return f"{number} {noun}{'' if number == 1 else 's'}{more}."
