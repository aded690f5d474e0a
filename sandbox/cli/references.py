"""Arguments that name a thing by its id or by the name that its owner gave it, such as a payout's reference."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Protocol

import typer

from sandbox.cli.failures import refused
from sandbox.cli.options import path_part
from sandbox.domain.ids import is_uuid

_VERSION: Final = slice(14, 15)
"""The position of the version in a UUID. Ids have version 7; UUIDs that merchants use as references usually do not."""


class _Reads(Protocol):
    """The part of a client that finds references."""

    def get(self, path: str, /, **params: Any) -> Any:
        """Send GET, and return the JSON."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Marks a command's parameter whose value may be a reference. The command gets the id.

    `path` is the list to look in, and `field` the items' field that has the reference. `is_filter` says whether the list has a
    parameter of that name; otherwise all its pages are read, and the first match counts. `in_path` says whether the id becomes
    a part of a URL's path.
    """

    kind: str
    path: str
    field: str
    is_filter: bool = True
    in_path: bool = True

    @property
    def help(self) -> str:
        """What the help says about an argument that is one."""
        return f"The {self.kind}'s id or {self.field}."

    def elsewhere(self) -> "Reference":
        """Return the same for an option or a field of a body."""
        return replace(self, in_path=False)

    def id_of(self, client: _Reads, value: str | None) -> str | None:
        """Return the id of the item with this id or reference. If there is none, return the value for a path, so that the API
        refuses it; for anything else, raise Failure.
        """
        if value is None or (is_uuid(value) and value[_VERSION] == "7"):
            return value
        part = path_part(value)
        found = self._find(client, value)
        if found is not None:
            return found
        if self.in_path or is_uuid(value):
            return part
        raise refused(f"No {self.kind} has the id or {self.field} {value!r}.", "NOT_FOUND")

    def _find(self, client: _Reads, value: str) -> str | None:
        if self.is_filter:
            return next((str(item["id"]) for item in client.get(self.path, **{self.field: value})["data"]), None)
        cursor = None
        while True:
            page: dict[str, Any] = client.get(self.path, cursor=cursor)
            for item in page["data"]:
                if item[self.field] == value and item["id"]:
                    return str(item["id"])
            cursor = page.get("next_cursor")
            if cursor is None:
                return None


PAYOUT: Final = Reference("payout", "/api/v1/payouts", "merchant_reference")
USER: Final = Reference("user", "/api/v1/users", "external_id")
SNAPSHOT: Final = Reference("snapshot", "/sandbox/v1/snapshots", "name", is_filter=False)
SCENARIO: Final = Reference("scenario", "/sandbox/v1/scenarios", "name", is_filter=False)
BY_PARAMETER: Final = {"payout_id": PAYOUT, "user_id": USER, "snapshot_id": SNAPSHOT, "rule_id": SCENARIO}
"""The parameters of the API that may be given as a reference, if they are ids."""
PayoutId = Annotated[str, typer.Argument(help=PAYOUT.help), PAYOUT]
UserId = Annotated[str, typer.Argument(help=USER.help), USER]
