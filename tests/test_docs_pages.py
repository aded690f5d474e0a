"""The documentation in a real browser: no error, no request to elsewhere, accessible at both widths and in both themes."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

import httpx
import pytest
from playwright.sync_api import Page

from sandbox.domain.errors import CODES
from tests.harness import guide
from tests.harness.browser import Browsing, check_accessibility, check_page, screenshot
from tests.harness.world import Stack, World

HTML = {"accept": "text/html"}
_PAGES = [path.relative_to(guide.DOCS).with_suffix("").as_posix() for path in sorted(guide.DOCS.rglob("*.md"))]
GUIDE = [f"/docs/guide/{name}/" if name != "index" else "/docs/guide/" for name in _PAGES]
DIALECT = "/docs/dialects/safepay"
OTHERS = ["/docs#upload_bulk_credit", DIALECT, "/problems", "/problems/INSUFFICIENT_BALANCE", "/docs/guide/missing/"]


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    guide.build_if_stale()


def _open_some_operations(page: Page) -> None:
    """Open a few operations, with all that is in them. Remove what is in the others: axe does not judge what is hidden, but it
    takes a minute to read it."""
    for name in ("create_payout", "list_payouts", "create_webhook_endpoint", "advance_clock"):
        page.locator(f"#{name}").evaluate("card => card.open = true")
        page.locator(f"#{name} details").evaluate_all("all => all.forEach((one) => one.open = true)")
    page.evaluate("document.querySelectorAll('details.card:not([open]) > .inside').forEach((one) => one.remove())")


def _keep_one_token_of_each_kind(page: Page) -> None:
    """Leave one highlighted token of each class in the code, as plain text the others: axe reads the colors of each, and the
    longest page has ten thousand."""
    page.evaluate(
        """() => {
            const seen = new Set();
            for (const token of document.querySelectorAll("pre code span:not(:has(*))")) {
                if (seen.has(token.className)) token.replaceWith(token.textContent);
                seen.add(token.className);
            }
            document.querySelectorAll("pre code").forEach((code) => code.normalize());
        }"""
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", [*GUIDE, *OTHERS])
def test_every_page_is_accessible_at_both_widths_and_in_both_themes(browsing: Browsing, path: str) -> None:
    browsing.expected_statuses = {404} if "missing" in path else set()
    prepare = _open_some_operations if path.startswith("/docs#") else _keep_one_token_of_each_kind
    page = check_page(browsing, path, "", "docs" + re.sub(r"\W+", "-", path).rstrip("-"), prepare)
    assert page.locator("h1").count() == 1


@pytest.mark.slow
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
        paths = [*GUIDE, "/docs", DIALECT, "/problems"]
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
                if found[target.path] not in (200, 303, 307):
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


@pytest.mark.slow
def test_the_reference_filters_its_operations(browsing: Browsing) -> None:
    page = browsing.open("/docs")
    page.keyboard.press("/")
    page.keyboard.type("rotate-secret grace_seconds")
    page.get_by_text(re.compile(r"^1 of \d+ operations$")).wait_for()
    for shown in ("details.card:visible", "nav li:visible", "section:visible"):
        assert page.locator(shown).count() == 1
    page.locator("a[href='#list_payouts']").evaluate("link => link.click()")
    page.locator("#list_payouts").wait_for()
    assert page.locator("#search").input_value() == ""
    assert page.locator("details.card[open]").count() == 1
    page.get_by_role("button", name="Open all").click()
    assert page.locator("details.card:not([open])").count() == 0
    page.get_by_role("button", name="Close all").click()
    assert page.locator("details.card[open]").count() == 0


@pytest.mark.slow
def test_the_reference_copies_commands(browsing: Browsing) -> None:
    page = browsing.open("/docs#get_balance")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    command = page.locator("#get_balance pre.paste")
    page.locator("#get_balance .copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == command.text_content()


@pytest.mark.slow
def test_the_reference_calls_the_sandbox_with_the_readers_key(browsing: Browsing, world: World) -> None:
    """The key is sent to this sandbox, and kept nowhere."""
    browsing.expected_statuses = {401}
    page = browsing.open("/docs#create_payout")
    card = page.locator("#create_payout")
    card.get_by_role("button", name="Try it").click()
    body = card.get_by_label("Body")
    body.wait_for()
    assert '"merchant_reference"' in body.input_value()
    card.get_by_role("button", name="Send").click()
    card.get_by_text('"code": "MISSING_API_KEY"').wait_for()
    page.get_by_text("Your keys, for").click()
    page.get_by_label("API key (X-API-KEY)").fill(world.api_key)
    body.fill(json.dumps(world.payout_body(account_title="<img src=x onerror=alert(1)>")))
    card.get_by_role("button", name="Send").click()
    card.get_by_text('"status": "PENDING"').wait_for()
    page.evaluate("document.querySelectorAll('details.card:not([open], #get_payout) > .inside').forEach((one) => one.remove())")
    check_accessibility(page)
    payout_id = world.get("/api/v1/payouts").json()["data"][0]["id"]
    card = page.locator("#get_payout")
    card.locator("summary").first.click()
    card.get_by_role("button", name="Try it").click()
    card.get_by_label("payout_id (path)").fill(payout_id)
    card.get_by_role("button", name="Send").click()
    card.get_by_text(payout_id).first.wait_for()
    stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
    assert world.api_key not in stored
    page.reload()
    assert page.locator("#merchant-key").input_value() == ""


@pytest.mark.slow
def test_the_reference_of_a_dialect_is_chosen_and_calls_it(browsing: Browsing, world: World) -> None:
    page = browsing.open("/docs")
    page.get_by_role("link", name="Safepay Raast", exact=True).click()
    page.get_by_role("heading", name="Safepay Raast API").wait_for()
    page.get_by_text("Your keys, for").click()
    page.get_by_label("API key (X-SFPY-AGGREGATOR-SECRET-KEY)").fill(world.api_key)
    page.locator("nav a[href='#safepay_create_payout']").click()
    card = page.locator("#safepay_create_payout")
    card.get_by_role("button", name="Try it").click()
    card.get_by_label("aggregator_id (path)").fill(f"agg_{world.merchant_id}")
    card.get_by_role("button", name="Send").click()
    card.get_by_text('"status": "P_INITIATED"').first.wait_for()
    page.get_by_role("link", name="PSP Sandbox", exact=True).click()
    page.get_by_role("heading", name="PSP Sandbox API").wait_for()


@pytest.mark.parametrize(("path", "openapi"), [("/docs", "/openapi.json"), (DIALECT, "/openapi/safepay.json")])
def test_the_reference_is_complete_without_scripts(stack: Stack, path: str, openapi: str) -> None:
    page = httpx.get(f"{stack.api_url}{path}", trust_env=False)
    assert "script-src 'self';" in page.headers["content-security-policy"]
    document = httpx.get(f"{stack.api_url}{openapi}", trust_env=False).json()
    ids = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert set(re.findall(r'<details class="card" id="(\w+)"', page.text)) == ids
    assert "`" not in re.sub(r"<pre.*?</pre>", "", page.text, flags=re.DOTALL)
    for other in ("/docs", DIALECT):
        assert f'<a href="{other}"{" aria-current=" if other == path else ">"}' in page.text


@pytest.mark.parametrize("code", CODES)
def test_every_problem_is_explained(stack: Stack, code: str) -> None:
    page = httpx.get(f"{stack.api_url}/problems/{code}", headers=HTML, trust_env=False).text
    for part in ("What to do", "Retry?", "When it happens", "Example", "/docs/guide/"):
        assert part in page
    assert f"&#34;code&#34;: &#34;{code}&#34;" in page
    assert "`" not in re.sub(r"<pre.*?</pre>", "", page, flags=re.DOTALL)
