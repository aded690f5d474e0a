"""`/`, `/openapi.json`, `/docs` and `/problems`: the API's documentation as JSON and HTML. Public, without an API key."""

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from sandbox.domain.errors import CODES, Problem
from sandbox.domain.scenario_engine import Catalogue
from sandbox.http.accept import prefers_html
from sandbox.http.operation import Operation, get, operations_of
from sandbox.http.request import Request
from sandbox.http.responses import Response
from sandbox.server.docs import site
from sandbox.server.docs.openapi import build, encode
from sandbox.server.docs.page import Reference, docs_page, problem_page, problems_page

_HTML: Final = "text/html"
_SCRIPT: Final = (Path(__file__).parent / "reference.js").read_bytes()
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-cache",
}


_LINKS: Final = {
    "console": "/console",
    "guide": "/docs/guide/",
    "docs": "/docs",
    "openapi": "/openapi.json",
    "problems": "/problems",
    "health": "/health",
    "ready": "/health/ready",
    "metrics": "/metrics",
}


class Root(msgspec.Struct):
    """The response of `/`."""

    name: str
    version: str
    links: dict[str, str]
    """Name → URL."""


class DocsApi:
    """The operations that document the API."""

    def __init__(
        self, operations: Sequence[Operation], public_url: str, catalogue: Catalogue, others: Sequence[Reference] = ()
    ) -> None:
        """Document these operations and its own. `public_url` is the base URL in links and commands.

        `/docs` also leads to the pages of `others`.
        """
        self._operations = (*operations, *operations_of(self))
        self._public_url = public_url
        self._catalogue = catalogue
        self._others = others

    @cached_property
    def _document(self) -> dict[str, Any]:
        """The OpenAPI document, built on the first request."""
        return build(self._operations, self._public_url)

    @cached_property
    def _encoded(self) -> bytes:
        return encode(self._document)

    @cached_property
    def _docs_page(self) -> bytes:
        return docs_page(self._document, self._catalogue, self._others).encode()

    @get("/openapi.json", "Get this document", {200: dict[str, Any]}, access="public")
    async def openapi(self, request: Request) -> Response:
        return Response(200, self._encoded)

    @get("/docs", "Read the documentation", {200: str}, access="public", is_documented=False)
    async def docs(self, request: Request) -> Response:
        return html_page(self._docs_page)

    @get("/docs/reference.js", "Get the script of the documentation", {200: str}, access="public", is_documented=False)
    async def reference_script(self, request: Request) -> Response:
        return Response(200, _SCRIPT, "text/javascript", [("cache-control", "no-cache"), ("x-content-type-options", "nosniff")])

    @get("/problems", "List problem codes", {200: dict[str, Any]}, access="public", is_documented=False)
    async def problems(self, request: Request) -> Response | dict[str, Any]:
        if prefers_html(request.accept):
            return html_page(problems_page().encode())
        return {"data": [_problem_json(code, self._public_url) for code in CODES]}

    @get("/problems/{code}", "Explain a problem", {200: dict[str, Any]}, access="public", is_documented=False)
    async def problem(self, request: Request, code: str) -> Response | dict[str, Any]:
        if code not in CODES:
            raise Problem("NOT_FOUND", "Unknown problem code; /problems lists all codes.")
        if prefers_html(request.accept):
            return html_page(problem_page(code, self._document, site.is_page).encode())
        return _problem_json(code, self._public_url)

    @get("/", "List the sandbox's URLs", {200: Root}, access="public")
    async def root(self, request: Request) -> Response | Root:
        if prefers_html(request.accept):
            return _redirect("/console")
        links = {name: self._public_url + path for name, path in _LINKS.items()}
        return Root("PSP Sandbox", version("psp-sandbox"), links)


def _redirect(path: str) -> Response:
    return Response(307, headers=[("location", path)])


def html_page(body: bytes) -> Response:
    """Return a page of the documentation, which may load nothing from elsewhere."""
    return Response(200, body, _HTML, _HEADERS.items())


def _problem_json(code: str, public_url: str) -> dict[str, Any]:
    kind = CODES[code]
    return {
        "type": f"{public_url}/problems/{code}",
        "code": code,
        "status": kind.status,
        "title": kind.title,
        "cure": kind.resolution,
    }
