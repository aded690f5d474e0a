"""What a visit did in the console, as a script and as tests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sandbox.domain.clock import render
from sandbox.http.responses import Response
from sandbox.server.console.recording import MADE_BY, record
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
_PAGE: Final = "100"
_MAX_PAGES: Final = 10
"""The journal has 1000 calls at most."""


@pages.page("/steps")
async def steps(view: View) -> Response:
    """Show the calls that this visit made in the console, oldest first, as a script and as tests."""
    clock = await view.call("get_clock", shown=False)
    entries = await _visit(view)
    recording = record(entries, is_frozen=clock["frozen"], now=render(datetime.now(UTC)))
    return await view.render("steps.html", recording=recording, count=len(entries), url=view.kit.public_url)


async def _visit(view: View) -> list[Mapping[str, Any]]:
    """Return the calls in the journal that this session made in the console, oldest first."""
    since = render(datetime.fromtimestamp(view.session.started, UTC))
    caller = "" if view.operator else view.session.subject
    found: list[Mapping[str, Any]] = []
    query = {"limit": _PAGE}
    for _ in range(_MAX_PAGES):
        page = await view.call("list_requests", query=query, shown=False)
        found += [entry for entry in page["data"] if entry["at"] >= since and _is_own(entry, caller)]
        if not page["next_cursor"] or page["data"][-1]["at"] < since:
            break
        query["cursor"] = page["next_cursor"]
    return found[::-1]


def _is_own(entry: Mapping[str, Any], caller: str) -> bool:
    return (entry["request_headers"].get("user-agent"), entry["api_key_id"] or "") == (MADE_BY, caller)
