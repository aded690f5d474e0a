"""The guide is built without a warning, and the API serves exactly its files, with the right types and policies."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from build_backend.guide import with_absolute_links
from sandbox.http.operation import operations_of
from sandbox.http.routes import create_litestar
from sandbox.server.docs import guide_api, site
from sandbox.server.request_log import RequestLog
from tests.harness import guide
from tests.harness.raw_http import raw_request
from tests.harness.world import Stack

HTML = {"accept": "text/html,*/*;q=0.8"}


@pytest.fixture(scope="module")
def built() -> Path:
    """Return the folder of the guide."""
    return guide.build_if_stale()


@pytest.fixture
def http(stack: Stack, built: Path) -> Iterator[httpx.Client]:
    """Yield a client without an API key."""
    with httpx.Client(base_url=stack.api_url, trust_env=False) as client:
        yield client


def test_the_strict_build_reports_no_problem(tmp_path: Path) -> None:
    result = guide.build(tmp_path / "site")
    assert result.returncode == 0, result.stderr
    assert "No issues found" in result.stderr, result.stderr


def test_every_page_is_in_the_navigation(built: Path) -> None:
    """A page that the navigation does not name is in no menu, and not in llms.txt."""
    text = (built / "llms.txt").read_text()
    pages = {path.relative_to(guide.DOCS).as_posix() for path in guide.DOCS.rglob("*.md")}
    assert set(re.findall(r"\(/docs/guide/([\w/-]+\.md)\)", text)) == pages


def test_every_file_is_served_with_its_type(built: Path, http: httpx.Client) -> None:
    text = dict.fromkeys(
        (".go", ".http", ".java", ".php", ".py", ".rb", ".sh", ".toml", ".txt", ".yml"), "text/plain; charset=utf-8"
    )
    types = text | {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".md": "text/markdown; charset=utf-8",
        ".png": "image/png",
        ".svg": "image/svg+xml",
    }
    files = [path for path in built.rglob("*") if path.is_file() and path.suffix]
    assert len(files) > 20
    for path in files:
        name = path.relative_to(built).as_posix().removesuffix("index.html")
        response = http.get(f"/docs/guide/{name}")
        assert (response.status_code, response.headers["content-type"]) == (200, types[path.suffix]), name
        assert response.content == path.read_bytes()
        assert response.headers["x-content-type-options"] == "nosniff"


def test_a_known_etag_is_answered_with_304(http: httpx.Client) -> None:
    first = http.get("/docs/guide/")
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = http.get("/docs/guide/", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert "content-length" not in again.headers
        assert again.headers["etag"] == first.headers["etag"]
    assert http.get("/docs/guide/", headers={"if-none-match": '"other"'}).status_code == 200
    assert http.head("/docs/guide/").headers["etag"] == first.headers["etag"]


def test_pages_have_a_final_slash(http: httpx.Client) -> None:
    for path in ("/docs/guide", "/docs/guide/console"):
        response = http.get(path)
        assert (response.status_code, response.headers["location"]) == (308, path + "/")


def test_the_policy_of_each_page_allows_its_inline_scripts_and_no_others(built: Path, http: httpx.Client) -> None:
    for path in built.rglob("index.html"):
        name = path.relative_to(built).as_posix().removesuffix("index.html")
        policy = http.get(f"/docs/guide/{name}").headers["content-security-policy"]
        inline = re.findall(r"<script>(.*?)</script>", path.read_text(), re.DOTALL)
        expected = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inline}
        allowed = re.search(r"script-src ([^;]+);", policy)
        assert allowed is not None
        assert set(allowed[1].split()) == {"'self'", *expected}
        assert "unsafe" not in policy.replace("style-src 'self' 'unsafe-inline'", "")
        assert "http:" not in policy
        assert "default-src 'none'" in policy


@pytest.mark.parametrize(
    "name",
    [
        "nothing/", "nothing", "../page.py", "..%2fpage.py", "..%2f..%2fdb%2fengine.py", "%2e%2e/page.py", "/etc/passwd",
        "%2fetc%2fpasswd", "console/..%2f..%2fpage.py", "console/../../page.py", "..\\page.py", "%00", "index.html%00.png",
        ".hidden", "images", "images/", "assets/javascripts/LICENSE",
    ],
)  # fmt: skip
def test_nothing_but_the_guides_files_is_served(stack: Stack, built: Path, name: str) -> None:
    response = raw_request(stack.api_url, f"GET /docs/guide/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert response.status_code == 404, response.text[:500]
    assert "def " not in response.text
    assert "root:" not in response.text


def test_links_lead_to_no_file_outside_the_folder(tmp_path: Path) -> None:
    secret, folder = tmp_path / "secret.txt", tmp_path / "guide"
    folder.mkdir()
    secret.write_text("secret")
    (folder / "link.txt").symlink_to(secret)
    (folder / "own.txt").write_text("own")
    assert site.find("link.txt", folder) is None
    assert site.find("../secret.txt", folder) is None
    found = site.find("own.txt", folder)
    assert found is not None
    assert found.content == b"own"


def test_a_guide_that_is_built_again_is_served_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first")
    first = site.find("a.txt", tmp_path)
    (tmp_path / "a.txt").write_text("second")
    second = site.find("a.txt", tmp_path)
    assert first is not None
    assert second is not None
    assert (first.content, second.content) == (b"first", b"second")
    assert first.etag != second.etag


def test_a_missing_page_is_explained_to_people_and_to_programs(http: httpx.Client) -> None:
    page = http.get("/docs/guide/nothing/", headers=HTML)
    assert page.status_code == 404
    assert "/docs/guide/" in page.text
    assert "make docs" not in page.text
    problem = http.get("/docs/guide/nothing/", headers={"accept": "*/*"})
    assert (problem.status_code, problem.json()["code"]) == (404, "NOT_FOUND")


async def test_a_guide_that_was_not_built_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "FOLDER", tmp_path)
    app = create_litestar(operations_of(guide_api.GuideApi()), (), "http://127.0.0.1", 0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(RequestLog(app)), base_url="http://127.0.0.1") as client:
        for path in ("/docs/guide/", "/docs/guide/console/", "/llms.txt"):
            page = await client.get(path, headers=HTML)
            assert page.status_code == 404
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert "make docs" in page.text
            assert "make docs" in (await client.get(path)).json()["detail"]


def test_the_texts_for_programs_list_and_contain_every_page(http: httpx.Client) -> None:
    index, full = http.get("/llms.txt"), http.get("/llms-full.txt")
    assert index.text.startswith("# PSP Sandbox\n\n> ")
    links = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S.*$", index.text, re.MULTILINE)
    assert len(links) == index.text.count("\n- ")
    for link in links:
        response = http.get(link)
        assert response.status_code == 200, link
        if link.startswith("/docs/guide/"):
            page = with_absolute_links(response.text, link.removeprefix("/docs/guide/"))
            assert page.strip() in full.text


def test_every_link_in_the_texts_for_programs_leads_somewhere(http: httpx.Client) -> None:
    for name in ("/llms.txt", "/llms-full.txt"):
        links = set(re.findall(r"\]\(([^)\s]+)\)", http.get(name).text))
        local = {link.partition("#")[0] for link in links if not re.match("[a-z]+:", link)}
        assert local
        assert {link for link in local if not link.startswith("/")} == set()
        missing = {link for link in local if http.get(link, follow_redirects=True).status_code != 200}
        assert missing == set()


def test_the_root_and_the_console_lead_to_the_guide(http: httpx.Client) -> None:
    assert http.get("/").json()["links"]["guide"] == f"{http.base_url}/docs/guide/".replace("//docs", "/docs")
    assert 'href="/docs/guide/"' in http.get("/console/sign-in", headers=HTML).text
    assert 'href="/docs/guide/' in http.get("/docs").text


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    """They lead to files of the repository, which a package registry's page and a code host show."""
    text = (guide.ROOT / "README.md").read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (guide.ROOT / link).exists()] == []


def test_the_readme_starts_with_the_two_commands() -> None:
    text = (guide.ROOT / "README.md").read_text()
    first = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert first is not None
    assert re.findall(r"^make \w+", first[1], re.MULTILINE) == ["make up", "make test"]


def test_every_list_and_table_begins_after_an_empty_line() -> None:
    """Code hosts show one that follows a paragraph as a list; the guide would show it as a part of the paragraph."""
    glued = []
    for page in guide.DOCS.rglob("*.md"):
        text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        inside = False
        previous = ""
        for line in text.splitlines():
            begins = bool(re.match(r"(?:[-*]|\d+\.) |\|", line))
            if begins and not inside and previous.strip() and not previous.startswith("#"):
                glued.append(f"{page.name}: {line[:60]}")
            inside = (inside or begins) and bool(line.strip())
            previous = line
    assert glued == []
