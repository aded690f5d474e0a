"""The guide in sandbox/server/docs/guide, built when a test needs it and docs/ changed since."""

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
DOCS: Final = ROOT / "docs"
SITE: Final = ROOT / "sandbox" / "server" / "docs" / "guide"
BUILDER: Final = ROOT / "build_backend" / "guide.py"


def build(site: Path) -> subprocess.CompletedProcess[str]:
    """Build the guide into a folder, and return the builder's exit code and output."""
    return subprocess.run([sys.executable, str(BUILDER), str(site)], capture_output=True, text=True, check=False)


def build_if_stale() -> Path:
    """Return the folder with the guide as docs/ is now. Safe in parallel processes."""
    sources = [BUILDER, ROOT / "zensical.toml", *DOCS.rglob("*")]
    newest = max(path.stat().st_mtime for path in sources)
    with (ROOT / "zensical.toml").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        index = SITE / "index.html"
        if not index.exists() or index.stat().st_mtime < newest:
            result = build(SITE)
            assert result.returncode == 0, result.stdout + result.stderr
    return SITE
