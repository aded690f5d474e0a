"""Write the application's OpenAPI document: `python -m sandbox.server.export_openapi [FILE]`, by default the committed file."""

import sys
from pathlib import Path
from typing import Final

from sandbox.infrastructure.settings import Settings
from sandbox.server.app import create_app
from sandbox.server.docs.openapi import DEFAULT_URL, build, encode

_COMMITTED: Final = Path(__file__).parent.parent.parent / "openapi" / "openapi.json"


def export(path: Path) -> None:
    """Write the document to `path`, exactly as committed. Connects to no store."""
    settings = Settings.load(
        {
            "DATABASE_URL": "postgresql://nowhere/",
            "REDIS_URL": "redis://nowhere",
            "SANDBOX_SECRET_KEY": "A" * 43 + "=",
            "SANDBOX_PUBLIC_URL": DEFAULT_URL,
        }
    )
    path.write_bytes(encode(build(create_app(settings).operations, DEFAULT_URL)))


if __name__ == "__main__":
    export(Path(sys.argv[1]) if len(sys.argv) > 1 else _COMMITTED)
