"""Protection of the console in a browser: response headers, the cookie, and the check of a request's origin.

The server refuses requests to host names that are not its own (`http/hosts.py`).
"""

import gzip
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from sandbox.domain.errors import Problem
from sandbox.http.request import Request
from sandbox.server.console.session import MAX_SECONDS

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Also keeps pages out of the browser's back-forward cache, so that nobody sees them after signing out.
    "cache-control": "no-store",
}
"""The headers of every page."""
_LARGE: Final = 20_000
"""From how many bytes on a page is compressed."""


def cookie(name: str, value: str, *, is_secure: bool) -> str:
    """Return the Set-Cookie header for a session; an empty value deletes the cookie.

    A link on another site opens the console signed in (SameSite=Lax). Forms of other sites are refused by their origin, and for
    lack of a token.
    """
    lifetime = MAX_SECONDS if value else 0
    secure = "; Secure" if is_secure else ""
    return f"{name}={value}; Path=/console; Max-Age={lifetime}; HttpOnly; SameSite=Lax{secure}"


def cookies_of(request: Request, prefix: str) -> dict[str, str]:
    """Return the cookies whose names begin with `prefix`. If a name is there twice, the first counts: its path is longer."""
    found: dict[str, str] = {}
    for header in request.header_list(b"cookie"):
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            if name.startswith(prefix):
                found.setdefault(name, value)
    return found


def require_own_origin(request: Request) -> None:
    """Raise FORBIDDEN if another site's page sends the request. Browsers send Origin with every POST."""
    origin = request.header("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc != (request.header("host") or "")
    if origin is None or is_foreign or request.header("sec-fetch-site") not in (None, "same-origin"):
        raise Problem("FORBIDDEN", "This form was sent from another site. Open the console itself, and try again.")


def compressed(request: Request, page: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    """Return a page as its browser gets it, and the headers that say so. Large pages are compressed if it accepts that.

    A page that another site caused the browser to open is not: the size of a compressed page tells, by guesses in its query,
    the secrets in it (BREACH). Browsers say who caused a request, and without that a page is not compressed either.
    """
    is_own = request.header("sec-fetch-site") in ("same-origin", "none")
    if len(page) < _LARGE or not is_own or "gzip" not in (request.header("accept-encoding") or ""):
        return page, add()
    return gzip.compress(page, compresslevel=1), add([("content-encoding", "gzip")])


def add(headers: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """Return the headers of a page and these."""
    return [*HEADERS.items(), *headers]
