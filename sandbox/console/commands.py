"""The commands that do the same as a page or a button. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.http.operation import Operation


@dataclass(frozen=True, slots=True)
class Command:
    """A call as a curl command and as a `psp` command."""

    curl: str
    psp: str


class Commands:
    """Writes API calls as commands."""

    def __init__(self, operations: Sequence[Operation], public_url: str) -> None:
        self._operations = {operation.id: operation for operation in operations}
        self._public_url = public_url

    def of(self, operation_id: str, path: Mapping[str, str], query: Mapping[str, str], body: Any) -> Command:
        """Return the commands for a call."""
        operation = self._operations[operation_id]
        return Command(f"curl -X {operation.method} {self._public_url}{operation.path.format(**path)}", "")
