"""Write every operation of openapi.json as a request of an .http file, which VS Code (REST Client) and JetBrains' editors send.

Usage: python openapi/generate_http.py FILE.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

DOCUMENT: Final = Path(__file__).parent / "openapi.json"
METHODS: Final = ("get", "post", "put", "patch", "delete")
KEYS: Final = {"ApiKey": "X-API-KEY: {{api_key}}", "OperatorKey": "X-ADMIN-KEY: {{admin_key}}"}
"""Security scheme → header."""
TOP: Final = """\
# Every operation of the sandbox, from its OpenAPI document. Send a request with the VS Code extension "REST Client", or with a
# JetBrains editor. The keys are those of `psp up` on loopback; set the ids below to those that responses show.
@url = {url}
@api_key = sk_sandbox_demo_admin
@admin_key = ak_sandbox_development_admin
"""
BOUNDARY: Final = "boundary-of-the-file"


def collection(document: dict[str, Any]) -> str:
    """Return the text of the .http file. A parameter of a path is a variable at the top."""
    names = dict.fromkeys(name for path in document["paths"] for name in re.findall(r"\{(\w+)\}", path))
    top = TOP.format(url=document["servers"][0]["url"]) + "".join(f"@{name} =\n" for name in names)
    return "\n".join([top, *_requests(document)])


def _requests(document: dict[str, Any]) -> Iterator[str]:
    """Yield the text of each request, tag by tag in the document's order."""
    tags = [tag["name"] for tag in document["tags"]]
    found = [
        (tags.index(operation["tags"][0]), method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]
    for tag, method, path, operation in sorted(found, key=lambda one: one[0]):
        yield _request(document, f"{tags[tag]}: {operation['summary']}", f"{method.upper()} {{{{url}}}}{path}", operation)


def _request(document: dict[str, Any], title: str, line: str, operation: dict[str, Any]) -> str:
    headers = [KEYS[name] for security in operation["security"] for name in security if name in KEYS]
    parameters = [_resolved(document, one) for one in operation.get("parameters", ())]
    if any(one["name"].upper() == "X-IDEMPOTENCY-KEY" for one in parameters):
        headers.append(f"X-IDEMPOTENCY-KEY: {operation['operationId']}-{{{{$timestamp}}}}")
    kind, body = _body(document, operation)
    if kind:
        headers.append(f"Content-Type: {kind}")
    line = re.sub(r"(?<!\{)\{(\w+)\}(?!\})", r"{{\1}}", line)
    return "\n".join([f"### {title}", f"# @name {operation['operationId']}", line, *headers, *(("", body) if body else ()), ""])


def _body(document: dict[str, Any], operation: dict[str, Any]) -> tuple[str, str]:
    """Return the media type and the example of an operation's body; two empty texts if it has none."""
    content = _resolved(document, operation.get("requestBody", {})).get("content", {})
    for kind, described in content.items():
        example = described.get("example", {})
        if kind == "multipart/form-data":
            return f"{kind}; boundary={BOUNDARY}", "\n".join([*(_part(*field) for field in example.items()), f"--{BOUNDARY}--"])
        return kind, json.dumps(example, indent=2, ensure_ascii=False)
    return "", ""


def _part(name: str, value: str) -> str:
    """Return a field of a form; a field named `file` is a file."""
    file = '; filename="file.csv"' if name == "file" else ""
    return f'--{BOUNDARY}\nContent-Disposition: form-data; name="{name}"{file}\n\n{value}'


def _resolved(document: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference refers to."""
    if "$ref" not in described:
        return described
    found: Any = document
    for name in described["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


def main() -> None:
    """Write the file that the command line names."""
    document = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    Path(sys.argv[1]).write_text(collection(document), encoding="utf-8")


if __name__ == "__main__":
    main()
