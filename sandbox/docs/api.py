"""`/`, `/openapi.json`, `/docs` and `/problems`: the API's description, for programs and for people. Public, with no key."""

from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Litestar, Router, get
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.docs.openapi import build, encode
from sandbox.docs.page import docs_page, problem_page, problems_page
from sandbox.domain.errors import CODES, Problem
from sandbox.domain.scenario_engine import Catalogue
from sandbox.http.accept import quality
from sandbox.http.answers import JSON, ok
from sandbox.http.guard import HttpRequest, accepted
from sandbox.http.operation import Operation

_HTML: Final = "text/html"
"""Litestar adds the charset to what is text."""
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "cache-control": "no-cache",
}


_LINKS: Final = {
    "console": "/console",
    "docs": "/docs",
    "openapi": "/openapi.json",
    "problems": "/problems",
    "health": "/health",
    "ready": "/health/ready",
    "metrics": "/metrics",
}


class Root(msgspec.Struct):
    """The answer of `/`."""

    name: str
    version: str
    links: dict[str, str]
    """Name → URL."""


class _Documents:
    """The document and its page, made on the first request (all routes are known by then) and kept as bytes."""

    def __init__(self, public_url: str, catalogue: Catalogue) -> None:
        self._public_url = public_url
        self._catalogue = catalogue
        self._made: tuple[bytes, bytes] | None = None

    def of(self, app: Litestar) -> tuple[bytes, bytes]:
        """The OpenAPI document and the page that shows it."""
        if self._made is None:
            document = build(app.routes, self._public_url)
            self._made = encode(document), docs_page(document, self._catalogue).encode()
        return self._made


def docs_router(public_url: str, catalogue: Catalogue) -> Router:
    """The routes of the documentation. `public_url` is what its links and commands name."""
    documents = _Documents(public_url, catalogue)

    @get(
        "/openapi.json", operation_id="openapi",
        opt={"operation": Operation("Get this document", {200: dict[str, Any]}, security="none")},
    )  # fmt: skip
    async def openapi(request: HttpRequest) -> ASGIResponse:
        return ASGIResponse(body=documents.of(request.app)[0], media_type=JSON)

    @get("/docs")
    async def docs(request: HttpRequest) -> ASGIResponse:
        return _page(documents.of(request.app)[1])

    @get("/problems")
    async def problems(request: HttpRequest) -> ASGIResponse:
        if _wants_html(request):
            return _page(problems_page().encode())
        return ok({"data": [_explained(code, public_url) for code in CODES]})

    @get("/problems/{code:str}")
    async def problem(request: HttpRequest, code: FromPath[str]) -> ASGIResponse:
        if code not in CODES:
            raise Problem("NOT_FOUND", "There is no such code; /problems lists them all.")
        if _wants_html(request):
            return _page(problem_page(code).encode())
        return ok(_explained(code, public_url))

    @get("/", operation_id="root", opt={"operation": Operation("List the sandbox's URLs", {200: Root}, security="none")})
    async def root(request: HttpRequest) -> ASGIResponse:
        if _wants_html(request):
            return _redirect("/console")
        links = {name: public_url + path for name, path in _LINKS.items()}
        return ok(Root("PSP Sandbox", version("psp-sandbox"), links))

    @get("/console")
    async def console(request: HttpRequest) -> ASGIResponse:
        return _redirect("/docs")  # until there is a console

    return Router("/", route_handlers=[openapi, docs, problems, problem, root, console])


def _redirect(path: str) -> ASGIResponse:
    return ASGIResponse(status_code=307, headers={"location": path})


def _page(body: bytes) -> ASGIResponse:
    return ASGIResponse(body=body, media_type=_HTML, headers=_HEADERS)


def _wants_html(request: HttpRequest) -> bool:
    """Browsers name HTML; a program that follows a problem's `type` gets JSON."""
    accept = (accepted(request) or "").lower()
    return "text/html" in accept and quality(accept, "text/html") >= max(quality(accept, JSON), 0.001)


def _explained(code: str, public_url: str) -> dict[str, Any]:
    kind = CODES[code]
    return {
        "type": f"{public_url}/problems/{code}",
        "code": code,
        "status": kind.status,
        "title": kind.title,
        "cure": kind.cure,
    }
