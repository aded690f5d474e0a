"""`/docs/guide/`, `/llms.txt` and `/llms-full.txt`: the guide as built from docs/. Public, without an API key."""

from sandbox.domain.errors import Problem
from sandbox.http.accept import prefers_html
from sandbox.http.operation import get
from sandbox.http.request import Request
from sandbox.http.responses import Response
from sandbox.server.docs import site
from sandbox.server.docs.page import missing_page

_GUIDE = "/docs/guide"


class GuideApi:
    """The operations that serve the guide."""

    @get("/docs/guide", "Read the guide", {200: str}, access="public", is_documented=False)
    async def guide(self, request: Request) -> Response:
        # Relative links in a page need the final slash.
        return _serve(request, "") if request.ends_in_slash else _redirect(f"{_GUIDE}/")

    @get("/docs/guide/{name:path}", "Read a page of the guide", {200: str}, access="public", is_documented=False)
    async def guide_file(self, request: Request, name: str) -> Response:
        name = name.strip("/")
        if request.ends_in_slash:
            return _serve(request, f"{name}/")
        return _redirect(f"{_GUIDE}/{name}/") if site.is_page(name) else _serve(request, name)

    @get("/llms.txt", "Read the guide's index as text", {200: str}, access="public", is_documented=False)
    async def llms(self, request: Request) -> Response:
        return _serve(request, "llms.txt")

    @get("/llms-full.txt", "Read the whole guide as text", {200: str}, access="public", is_documented=False)
    async def llms_full(self, request: Request) -> Response:
        return _serve(request, "llms-full.txt")


def _redirect(path: str) -> Response:
    return Response(308, headers=[("location", path)])


def _serve(request: Request, name: str) -> Response:
    found = site.find(name)
    if found is None:
        return _missing(request)
    headers = [
        ("etag", found.etag),
        ("cache-control", "no-cache"),
        ("content-security-policy", found.policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ]
    known = [tag.strip().removeprefix("W/") for tag in (request.header("if-none-match") or "").split(",")]
    if found.etag in known or "*" in known:
        return Response(304, headers=headers)
    return Response(200, found.content, found.media_type, headers)


def _missing(request: Request) -> Response:
    """Return the page for a missing page, or for a guide that was not built (`make docs` builds it)."""
    is_built = site.is_built()
    if not prefers_html(request.accept):
        raise Problem("NOT_FOUND", "" if is_built else "The guide was not built. In a checkout, run `make docs`.")
    return Response(404, missing_page(is_built).encode(), "text/html", [("content-security-policy", site.policy_of([]))])
