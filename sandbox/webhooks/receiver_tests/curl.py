"""Write requests as curl commands for a POSIX shell. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from sandbox.webhooks.receiver_tests.events import Outgoing

_LONG_RUN: Final = re.compile(r"x{1000,}")
_SAFE: Final = re.compile(r"[A-Za-z0-9_@%+=:,./-]+\Z")


def curl(url: str, requests: Sequence[Outgoing], at_once: int = 1) -> str:
    """Return commands that send the requests in order.

    With `at_once`, only the first request is sent, that many times at the same time.
    """
    if at_once > 1:
        return f"seq {at_once} | xargs -P {at_once} -I % sh -c {_quoted(_command(url, requests[0], ' '))}"
    return "\n".join(_command(url, request, " \\\n  ") for request in requests)


def _command(url: str, request: Outgoing, separator: str) -> str:
    parts = [f"curl -i -X {request.method} {_quoted(url)}"]
    if request.method == "POST":
        parts.append("-H 'content-type: application/json'")
    # `name;` is curl's spelling of a header with an empty value.
    parts += [f"-H {_quoted(f'{name}: {value}' if value else f'{name};')}" for name, value in request.headers.items()]
    body = request.body.decode()
    run = _LONG_RUN.search(body)
    if run is None:
        return separator.join([*parts, f"--data-binary {_quoted(body)}"] if request.method == "POST" else parts)
    head, tail = body[: run.start()], body[run.end() :]
    content = f"{{ printf %s {_quoted(head)}; head -c {len(run[0])} /dev/zero | tr '\\0' x; printf %s {_quoted(tail)}; }}"
    return f"{content} |{separator}" + separator.join([*parts, "--data-binary @-"])


def _quoted(text: str) -> str:
    return text if _SAFE.match(text) else "'" + text.replace("'", "'\"'\"'") + "'"
