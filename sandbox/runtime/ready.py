"""What a run says of itself when all is ready, and the file it is written to."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox.runtime.run_directories import StartError


@dataclass(frozen=True, slots=True)
class SeedKeys:
    """What the seeds print; all None when nothing was seeded."""

    merchant_id: str | None = None
    api_key: str | None = None
    member_api_key: str | None = None
    webhook_secret: str | None = None
    ipn_secret: str | None = None
    users_api_key: str | None = None
    """Of the demo merchant with users; the ready file has no member for it."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A run's addresses and keys."""

    api_url: str
    ipn_url: str
    console_url: str
    admin_key: str
    database_url: str
    redis_url: str
    keys: SeedKeys

    def to_json(self) -> str:
        """One line, with the members that the contract names for the ready file."""
        members = asdict(self)
        members |= members.pop("keys")
        del members["users_api_key"]
        return json.dumps(members)


def read_seed_keys(output: str) -> SeedKeys:
    """The keys in what the seeds printed: the last line that is a JSON object."""
    for line in reversed(output.splitlines()):
        if not line.lstrip().startswith("{"):
            continue
        try:
            found = json.loads(line)
            return SeedKeys(**{name: found.get(name) for name in SeedKeys.__dataclass_fields__})
        except ValueError:
            break
    raise StartError(f"seeds printed no JSON object but {output[-200:]!r}.")


def forget_earlier(path: Path) -> None:
    """Delete what an earlier run left: a script that waits for the file must not read that. Raises StartError where
    the file cannot be deleted, or could not be written later."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StartError(f"The ready file {path} cannot be replaced ({error.strerror}).") from error
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise StartError(f"The ready file {path} cannot be written: its folder is missing or not writable.")


def write_ready_file(path: Path, ready: Ready) -> None:
    """Write the file whole or not at all, for its owner only (it holds keys): whoever sees it can read all of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(ready.to_json() + "\n")
        os.replace(fresh, path)
    except OSError as error:
        raise StartError(f"The ready file {path} cannot be written ({error.strerror}).") from error
