"""The files of the guide, as `build_backend/guide.py` builds them: their media types, ETags and content security policies."""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "guide"

_MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".csv": "text/csv",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    **dict.fromkeys((".go", ".http", ".java", ".php", ".py", ".rb", ".sh", ".toml", ".txt", ".yaml", ".yml"), "text/plain"),
}
_INLINE_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# The theme's search dialog adds a <style> element to the page.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class File:
    """A file of the guide."""

    content: bytes
    media_type: str
    etag: str
    policy: str
    """Its Content-Security-Policy. For a page, it allows exactly the inline scripts of that page."""


def is_built() -> bool:
    """Return whether the guide was built."""
    return (FOLDER / "index.html").is_file()


def is_page(name: str) -> bool:
    """Return whether a name without a final slash is that of a page, whose links need the slash."""
    found = _path_of(f"{name}/", FOLDER)
    return found is not None and found.is_file()


def find(name: str, folder: Path | None = None) -> File | None:
    """Return a file by its URL path relative to the guide's, or None. A name that is empty or ends in a slash is a page's.

    No name leads outside the folder.
    """
    path = _path_of(name, folder or FOLDER)
    if path is None or not path.is_file():
        return None
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


def _path_of(name: str, folder: Path) -> Path | None:
    if "\0" in name or "\\" in name or any(part.startswith(".") for part in name.split("/")):
        return None
    path = (folder / f"./{name}index.html" if not name or name.endswith("/") else folder / f"./{name}").resolve()
    is_inside = path.is_relative_to(folder.resolve())
    return path if is_inside and path.suffix in _MEDIA_TYPES else None


@lru_cache(maxsize=256)
def _read(path: Path, mtime_ns: int, size: int) -> File:
    """Read a file. The time and the size are part of the cache's key, so that a guide built again is served immediately."""
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    scripts = _INLINE_SCRIPT.findall(content.decode()) if path.suffix == ".html" else []
    return File(content, _MEDIA_TYPES[path.suffix], etag, policy_of(scripts))


def policy_of(scripts: list[str]) -> str:
    """Return a content security policy that allows our own files and these inline scripts."""
    digests = dict.fromkeys(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return _POLICY.format(hashes="".join(f" 'sha256-{digest}'" for digest in digests))
