"""The results of tools: short text and structured content, of bounded size and without secrets."""

import dataclasses
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from mcp.types import CallToolResult, TextContent
from pydantic import ValidationError

from psp_sandbox.client import ProblemError, PspError, Unreachable
from sandbox.cli.mcp_server.wording import FAULTS, advice, argument, in_tool_terms

_MAX_TEXT: Final = 2000
"""Longer strings are cut."""
_MAX_BODY: Final = 500
"""The limit for the bodies in lists of requests."""
_MAX_RESULT: Final = 40_000
"""The size of a result's JSON, in characters. Longer lists are cut."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """The result of a tool: one sentence, and the data."""

    summary: str
    data: dict[str, Any]


class Refusal(Exception):
    """A tool cannot do what was asked. `advice` says what to do about it."""

    def __init__(self, code: str, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.advice = advice


def plain(value: Any) -> Any:
    """Convert a model of the client to JSON: field names of the API, money as text, times in UTC."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.metadata.get("name", item.name): plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def cut(text: str, limit: int = _MAX_BODY) -> str:
    """Return the beginning of a long text, with a note of how long it was."""
    return text if len(text) <= limit else f"{text[:limit]}… [cut: {len(text)} characters]"


def succeeded(result: Result, secrets: Iterable[str]) -> CallToolResult:
    """Return a tool's result for the protocol, bounded and without these secrets."""
    hidden = set(secrets)
    data = _cut_lists(_clean(plain(result.data), hidden))
    summary = _clean(result.summary, hidden)
    texts = (summary, json.dumps(data, ensure_ascii=False))
    return CallToolResult(content=[TextContent(type="text", text=text) for text in texts], structured_content=data)


def failed(error: Exception, secrets: Iterable[str]) -> CallToolResult | None:
    """Return a failure as a tool error: a code, what is wrong, and what to do. None if the error is not an expected one."""
    found = _problem(error)
    if found is None:
        return None
    problem = _clean(found, set(secrets))
    lines = [f"{problem['code']}: {problem['detail']}"]
    items = [f"{item['field']}: {item['message']}" for item in problem.get("errors", ())]
    lines += [f"  {item}" for item in items if item.rstrip(".") not in problem["detail"]]
    lines.append(f"What to do: {problem['what_to_do']}")
    return CallToolResult(
        content=[TextContent(type="text", text="\n".join(lines))], structured_content={"error": problem}, is_error=True
    )


def _problem(error: Exception) -> dict[str, Any] | None:
    if isinstance(error, Refusal):
        return {"code": error.code, "detail": error.detail, "what_to_do": error.advice}
    if isinstance(error, ValidationError):
        # Without the rejected values: they repeat what the caller sent, which may be a secret.
        wrong = [
            {
                "field": ".".join(str(part) for part in item["loc"]) or "arguments",
                "message": "is not an argument of this tool" if item["type"] == "extra_forbidden" else item["msg"],
            }
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        detail = "The arguments do not match the tool's input schema."
        return {"code": "INVALID_ARGUMENTS", "detail": detail, "errors": wrong, "what_to_do": "Correct them and call it again."}
    if isinstance(error, ProblemError):
        problem = {
            "code": error.code,
            "status": error.status,
            "title": error.title,
            "detail": in_tool_terms(error.detail or error.title),
            "request_id": error.request_id,
            "what_to_do": advice(error.code),
        }
        errors = [{"field": argument(item.field), "message": in_tool_terms(item.message)} for item in error.errors]
        return problem | ({"errors": errors} if errors else {})
    if isinstance(error, Unreachable):
        cure = f"Check that the sandbox runs (`psp up`). {FAULTS}"
        return {"code": "UNREACHABLE", "detail": in_tool_terms(str(error)), "what_to_do": cure}
    if isinstance(error, TimeoutError):
        detail = "The sandbox did not finish in time."
        return {"code": "TIMEOUT", "detail": detail, "what_to_do": "Look at get_status, then repeat the call with less to do."}
    if isinstance(error, ValueError):
        # The client checks some arguments before it sends them, such as empty ids and times without a time zone.
        return {"code": "INVALID_ARGUMENTS", "detail": str(error), "what_to_do": "Correct the argument and call it again."}
    if isinstance(error, PspError):
        return {"code": "UNEXPECTED_ANSWER", "detail": str(error), "what_to_do": "Check that the URL is a sandbox's."}
    return None


def _clean(value: Any, secrets: set[str]) -> Any:
    """Return the value with long strings cut, and with `[redacted]` in place of secrets."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "[redacted]")
        # JSON from a caller can contain half of a surrogate pair, which UTF-8 cannot encode.
        return cut(value.encode(errors="replace").decode(), _MAX_TEXT)
    if isinstance(value, dict):
        return {_clean(name, secrets): _clean(item, secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, secrets) for item in value]
    return value


def _cut_lists(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data with its longest top-level lists shortened until it fits, and a note that says so."""
    cut = dict(data)
    while len(json.dumps(cut, ensure_ascii=False)) > _MAX_RESULT:
        sizes = {name: len(json.dumps(item)) for name, item in cut.items() if isinstance(item, list) and item}
        if not sizes:
            break
        longest = max(sizes, key=lambda name: sizes[name])
        cut[longest] = cut[longest][: len(cut[longest]) // 2]
        cut["note"] = f"Cut: {longest} has {len(data[longest])} items. Use filters or a smaller limit to see the others."
    return cut
