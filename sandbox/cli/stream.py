"""Server-sent events, as the sandbox's stream writes them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any


def messages(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(type, members) of each event; the type is empty for the comment that the stream begins with."""
    kind = ""
    for line in lines:
        if line == ": listening":
            yield "", {}
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            yield kind, json.loads(line[6:])
