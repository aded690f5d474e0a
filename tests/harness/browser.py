"""The console in a real browser: Debian's Chromium, driven by Playwright.

Every page is watched, as are the pages that it opens. Errors and warnings in its console (violations of the content security
policy are errors there), requests to anywhere but the sandbox, lost connections, and responses with an error status that the
test did not announce fail the test when it ends.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, sync_playwright

from tests.harness.console import ConsoleClient

NAMES: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WIDTHS: Final = {"wide": 1280, "narrow": 390}
Theme = Literal["light", "dark"]
_ERROR_STATUS: Final = "Failed to load resource: the server responded with a status of"


def find_chromium() -> str | None:
    """Return the path of a Chromium: PSP_CHROMIUM, or the first of NAMES in PATH."""
    given = os.environ.get("PSP_CHROMIUM")
    return given or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """Run a browser with these command-line options. Skips the test if there is none.

    Playwright's event loop counts as running in this thread until the browser is closed, so the block must not run asyncio.
    """
    path = find_chromium()
    if path is None:
        pytest.skip("no browser: install Debian's chromium, or set PSP_CHROMIUM to a Chromium's path")
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root; the pages come from this machine only.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *options]
        )
        try:
            yield browser
        finally:
            browser.close()


class Browsing:
    """The pages that one test opens."""

    def __init__(self, browser: Browser, api_url: str) -> None:
        self._browser = browser
        self._url = api_url
        self._contexts: list[BrowserContext] = []
        self.found: list[str] = []
        """What must not happen, and did."""
        self.expected_statuses: set[int] = set()
        """Error statuses that the test expects, such as 400 for a form that is not valid."""

    def open(
        self, path: str, key: str = "", *, width: int = 1280, theme: Theme = "light", cookies: Any = (), scripts: bool = True
    ) -> Page:
        """Return a page of a new browser profile; with a key, signed in with it; without scripts, JavaScript is off."""
        context = self._browser.new_context(
            base_url=self._url,
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            reduced_motion="reduce",
            java_script_enabled=scripts,
        )
        self._contexts.append(context)
        self._watch(context)
        if key:
            with ConsoleClient(self._url) as client:
                client.sign_in(key)
                cookies = [
                    {"name": known.name, "value": known.value, "domain": known.domain, "path": known.path}
                    for known in client.http.cookies.jar
                ]
        if cookies:
            context.add_cookies(cookies)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.goto(path)
        return page

    def _watch(self, context: BrowserContext) -> None:
        """Note everything that must not happen in the context's pages."""
        context.on("console", self._note_message)
        context.on("weberror", lambda error: self.found.append(f"error in a script: {error.error}"))
        context.on("request", self._note_request)
        context.on("response", self._note_response)
        context.on("page", lambda page: page.on("websocket", lambda socket: self._note_url(socket.url)))

    def _note_message(self, message: ConsoleMessage) -> None:
        # _note_response judges error statuses.
        if message.type in ("error", "warning") and not message.text.startswith(_ERROR_STATUS):
            self.found.append(f"{message.type} in the console: {message.text}")

    def _note_request(self, request: Request) -> None:
        self._note_url(request.url)

    def _note_url(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self._url).netloc and not url.startswith(("data:", "blob:")):
            self.found.append(f"a request to {url}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected_statuses:
            self.found.append(f"status {response.status} of {response.request.method} {response.url}")

    def close(self) -> None:
        """Close the pages, and fail if anything was noted."""
        for context in self._contexts:
            context.close()
        assert not self.found, "\n".join(self.found)


def check_accessibility(page: Page, *rules: str) -> None:
    """Assert that axe finds nothing in the page: with all its rules, or with these."""
    # Without `resultTypes`, axe describes each element that passed, too: most of its time.
    options = {"resultTypes": ["violations"], **({"runOnly": {"type": "rule", "values": list(rules)}} if rules else {})}
    violations = Axe().run(page, options=options).response["violations"]
    lines = []
    for found in violations:
        nodes = [f"{' '.join(node['target'])} ({node['html'][:150]})" for node in found["nodes"]]
        lines.append(f"{found['id']}: {found['help']}: {'; '.join(nodes)}")
    assert not lines, "\n".join([page.url, *lines])


def check_width(page: Page) -> None:
    """Assert that nothing is wider than the window, and that no table is wider than its place, which would hide cells."""
    too_wide: list[str] = page.evaluate(
        """() => {
            const tables = [...document.querySelectorAll(".scroll")].filter((e) => e.scrollWidth > e.clientWidth + 1);
            if (document.documentElement.scrollWidth <= window.innerWidth && !tables.length) return [];
            const isWide = (element) => element.getBoundingClientRect().right > window.innerWidth + 1;
            const wide = [...tables, ...[...document.querySelectorAll("body *")].filter(isWide)].slice(0, 5);
            const named = wide.map((e) => `${e.parentElement.id} ${e.scrollWidth} ${e.outerHTML.slice(0, 150)}`);
            return ["scrollWidth " + document.documentElement.scrollWidth, ...named];
        }"""
    )
    assert not too_wide, "\n".join([page.url, *too_wide])


def screenshot(page: Page, name: str) -> None:
    """Save the whole page as NAME.png in the folder PSP_SCREENSHOTS, if that variable is set."""
    folder = os.environ.get("PSP_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def check_page(browsing: Browsing, path: str, key: str, name: str, prepare: Callable[[Page], None] | None = None) -> Page:
    """Open a page at both widths and in both themes: axe finds nothing, nothing is too wide. Returns the page.

    `prepare` is called before the checks. Saves screenshots; see `screenshot`.
    """
    page = browsing.open(path, key)
    if prepare is not None:
        prepare(page)
    check_accessibility(page)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # a literal in a loop
        for width_name, width in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 900})
            check_width(page)
            screenshot(page, f"{name}-{width_name}-{theme}")
    # Of axe's rules, only this one depends on the theme.
    check_accessibility(page, "color-contrast")
    return page
