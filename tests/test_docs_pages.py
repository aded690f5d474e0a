"""The documentation in a real browser: no error, no request to elsewhere, accessible at both widths and in both themes."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

import httpx
import pytest

from tests.harness import guide
from tests.harness.browser import Browsing, check_page, screenshot
from tests.harness.world import Stack

HTML = {"accept": "text/html"}
_PAGES = [path.relative_to(guide.DOCS).with_suffix("").as_posix() for path in sorted(guide.DOCS.rglob("*.md"))]
GUIDE = [f"/docs/guide/{name}/" if name != "index" else "/docs/guide/" for name in _PAGES]
OTHERS = ["/docs", "/problems", "/problems/INSUFFICIENT_BALANCE", "/docs/guide/missing/"]


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    guide.build_if_stale()


@pytest.mark.parametrize("path", [*GUIDE, *OTHERS])
def test_every_page_is_accessible_at_both_widths_and_in_both_themes(browsing: Browsing, path: str) -> None:
    browsing.expected_statuses = {404} if "missing" in path else set()
    page = check_page(browsing, path, "", "docs" + path.replace("/", "-").rstrip("-"))
    assert page.locator("h1").count() == 1


def test_the_search_finds_a_word_on_a_page(browsing: Browsing) -> None:
    page = browsing.open("/docs/guide/")
    page.locator(".md-search__button").click()
    page.locator("dialog input").fill("approvals")
    result = page.locator("dialog a").filter(has_text=re.compile("approval", re.IGNORECASE)).first
    result.wait_for()
    screenshot(page, "docs-search")
    result.click()
    page.wait_for_url("**/docs/guide/*/?h=approvals*")


class _Links(HTMLParser):
    """Collects a page's links and anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def pages(stack: Stack) -> Iterator[dict[str, _Links]]:
    """Yield the links and anchors of every page of the documentation, by path."""
    with httpx.Client(base_url=stack.api_url, headers=HTML, trust_env=False) as client:
        paths = [*GUIDE, "/docs", "/problems"]
        paths += [path for path in _Links(client.get("/problems").text).links if path.startswith("/problems/")]
        yield {path: _Links(client.get(path).raise_for_status().text) for path in paths}


def test_every_internal_link_and_anchor_resolves(stack: Stack, pages: dict[str, _Links]) -> None:
    broken, found = [], {}
    with httpx.Client(base_url=stack.api_url, headers=HTML, trust_env=False) as client:
        for page, parsed in pages.items():
            for link in parsed.links:
                target = urlsplit(urljoin(f"http://here{page}", link))
                if target.netloc != "here":
                    continue
                if target.path not in found:
                    found[target.path] = client.get(target.path).status_code
                if found[target.path] not in (200, 307):
                    broken.append(f"{page}: {link} → {found[target.path]}")
                elif target.fragment and target.path in pages and unquote(target.fragment) not in pages[target.path].anchors:
                    broken.append(f"{page}: no anchor {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[str, _Links], stack: Stack) -> None:
    with httpx.Client(base_url=stack.api_url, headers=HTML, trust_env=False) as client:
        for path in pages:
            text = client.get(path).text
            assert not re.search(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?(?:https?:)?//""", text), path
            assert not re.search(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", text), path
