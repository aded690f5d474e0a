"""Parse the sandbox's stream of server-sent events."""

import json
from collections.abc import Iterable, Iterator
from typing import Any


def messages(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the type and fields of each event. The type is empty for the comment that starts the stream."""
    kind = ""
    for line in lines:
        if line == ": listening":
            yield "", {}
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            yield kind, json.loads(line[6:])
