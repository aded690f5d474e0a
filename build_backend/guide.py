"""Build the guide: the Markdown in docs/ becomes a site in sandbox/server/docs/guide, which the API serves at /docs/guide/.

Run it with `make docs`, or `python build_backend/guide.py [FOLDER]`. It needs Zensical, and nothing from the network.
"""

import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "sandbox" / "server" / "docs" / "guide"
URL = "/docs/guide/"
_UNUSED = ("sitemap.xml", "404.html", "assets/stylesheets/classic")
"""A sitemap needs a fixed URL, the API has its own page for 404, and no page uses the classic theme."""


def build(site: Path = SITE) -> Path:
    """Build the guide into a folder, replacing what was there, and return the folder.

    Raises CalledProcessError if a page has a mistake, such as a link to a page that does not exist.
    """
    # Zensical writes next to its configuration, and pages are read by a running sandbox: build apart, then swap. A rename needs
    # the same file system; in the checkout, tools that look for code in sandbox/ must not find this folder.
    apart = ROOT if site.is_relative_to(ROOT) else _nearest_folder(site)
    with tempfile.TemporaryDirectory(prefix=".psp-guide-", dir=apart) as name:
        work = Path(name)
        shutil.copy(ROOT / "zensical.toml", work)
        shutil.copytree(ROOT / "docs", work / "docs")
        _take_in_linked_files(work / "docs")
        subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=work, check=True, stdout=sys.stderr)
        built = work / "site"
        for unused in _UNUSED:
            path = built / unused
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _write_texts(work / "docs", built)
        requests = (ROOT / "openapi" / "generate_http.py", built / "psp-sandbox.http")
        subprocess.run([sys.executable, *map(str, requests)], cwd=work, check=True)  # noqa: S603 -- our own file
        site.parent.mkdir(parents=True, exist_ok=True)
        if site.exists():
            site.rename(work / "old")
        built.rename(site)
    return site


def sections() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the sections of the navigation with their pages: (title, file)."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    return [(title, list(_pages(pages))) for section in nav for title, pages in section.items()]


def url_of(file: str) -> str:
    """Return the path at which the API serves a page of docs/."""
    name = file.removesuffix(".md").removesuffix("index")
    return URL + (name.rstrip("/") + "/" if name else "")


def with_absolute_links(text: str, file: str) -> str:
    """Return a page of docs/ whose relative links work at any URL: to pages, files and images of the guide."""

    def absolute(found: re.Match[str]) -> str:
        path, mark, anchor = found[1].partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), path)) if path else file
        url = url_of(target) if target.endswith(".md") else URL + target
        return f"]({url}{mark}{anchor})"

    return re.sub(r"\]\((?![a-z]+:|/)([^)\s]+)", lambda found: absolute(found).removesuffix(")"), text)


def _pages(entries: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        for title, target in entry.items():
            if isinstance(target, str):
                yield title, target
            else:
                yield from _pages(target)


def _nearest_folder(path: Path) -> Path:
    """Return the closest parent that exists, so that a rename into `path` stays on one file system."""
    return next(parent for parent in path.parents if parent.is_dir())


def _take_in_linked_files(docs: Path) -> None:
    """Copy the files of the repository that pages link to, such as examples, into the site, and point the links there."""

    for page in sorted(docs.rglob("*.md")):
        depth = len(page.relative_to(docs).parts)
        folder = ROOT / "docs" / page.relative_to(docs).parent

        def rewritten(found: re.Match[str], folder: Path = folder, depth: int = depth) -> str:
            source = (folder / found[1]).resolve()
            if not source.is_file():
                return found[0]  # the test of links reports it
            # As text: Zensical would make a page of a Markdown file.
            name = source.relative_to(ROOT).as_posix() + (".txt" if source.suffix == ".md" else "")
            copy = docs / "files" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
            return f"]({'../' * (depth - 1)}files/{name}"

        text = page.read_text(encoding="utf-8")
        link_out = rf"\]\(({re.escape('../' * depth)}[^)#\s]+)"
        page.write_text(with_included_files(re.sub(link_out, rewritten, text)), encoding="utf-8")


def with_included_files(text: str) -> str:
    """Replace each line `--8<-- "FILE"`, with a path in the repository, by the file. Raises OSError if it cannot be read."""
    return re.sub(
        r'^--8<-- "([^"\n]+)"$', lambda found: (ROOT / found[1]).read_text(encoding="utf-8").rstrip(), text, flags=re.M
    )


def _write_texts(docs: Path, site: Path) -> None:
    """Write llms.txt (an index), llms-full.txt (all pages) and each page's Markdown, for programs that read text."""
    project = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    index = [f"# {project['site_name']}\n\n> {project['site_description']}\n"]
    full = list(index)
    for section, pages in sections():
        lines = []
        for title, file in pages:
            text = (docs / file).read_text(encoding="utf-8")
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            lines.append(f"- [{title}]({URL}{file}): {_summary(text)}")
            full.append(f"<!-- {url_of(file)} -->\n\n{with_absolute_links(text, file).strip()}\n")
        index.append(f"## {section}\n\n" + "\n".join(lines) + "\n")
    index.append(
        "## Reference\n\n"
        "- [OpenAPI document](/openapi.json): every operation, with schemas and examples\n"
        "- [Problem codes](/problems): every error as JSON, with what to do\n"
        "- [The whole guide](/llms-full.txt): all pages above in one file\n"
    )
    (site / "llms.txt").write_text("\n".join(index), encoding="utf-8")
    (site / "llms-full.txt").write_text("\n".join(full), encoding="utf-8")


def _summary(text: str) -> str:
    """Return the first sentence of a page's first paragraph, without Markdown."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.strip().splitlines() if not line.startswith("#")]
        if lines and re.match(r"(?!```)[\w*`\[]", lines[0]):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[*`]", r"\1", " ".join(lines))
            return re.split(r"(?<=[.:!?])\s", plain)[0].rstrip(":")
    return ""


if __name__ == "__main__":
    folder = build(*map(Path, sys.argv[1:2]))
    sys.stdout.write(f"The guide is in {folder}; a running sandbox serves it at {URL}\n")
