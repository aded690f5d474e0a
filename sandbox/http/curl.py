"""Write calls of the API as curl commands for a POSIX shell. Pure."""

import json
import shlex
from typing import Any, Final

MERCHANT_KEY: Final = '-H "X-API-KEY: $PSP_API_KEY"'
OPERATOR_KEY: Final = '-H "X-ADMIN-KEY: $PSP_ADMIN_KEY"'
NEW_KEY: Final = """-H "X-IDEMPOTENCY-KEY: $(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')\""""
"""Random for each run. Every POSIX system has `od` and `tr`, but not `uuidgen`."""
_MAX_ARGUMENT: Final = 100_000
"""In bytes. Linux refuses an argument of 128 KiB."""


def curl(method: str, url: str, *arguments: str) -> str:
    """Return a command with one argument per line. The URL and the arguments are already quoted for the shell."""
    start = "curl -sS" if method == "GET" else f"curl -sS -X {method}"
    return " \\\n  ".join([f"{start} {url}", *arguments])


def uploaded_file(media_type: str) -> tuple[str, ...]:
    """Return the arguments that send a file: as a form, or as a body of this media type."""
    if media_type.startswith("multipart/"):
        return ("-F file=@credits.csv",)
    return f"-H 'Content-Type: {media_type}'", "--data-binary @world.json"


def json_body(body: Any) -> tuple[str, str]:
    """Return the arguments that send a JSON body. One that is too long for an argument is the file body.json."""
    # Escape what a terminal could interpret when the command is pasted. `json.dumps` does so only up to U+001F.
    text = "".join(_escaped(character) for character in json.dumps(body, ensure_ascii=False))
    data = shlex.quote(text) if len(text.encode()) <= _MAX_ARGUMENT else "@body.json"
    return "-H 'Content-Type: application/json'", f"-d {data}"


def _escaped(character: str) -> str:
    """Return a character of a JSON text, escaped if it is not printable. All such characters are inside of strings."""
    return character if character.isprintable() else json.dumps(character)[1:-1]
