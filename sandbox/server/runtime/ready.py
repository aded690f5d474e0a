"""The URLs and keys of a run, which it reports when it is ready, and the ready file that contains them."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox.server.runtime.run_directories import StartError


@dataclass(frozen=True, slots=True)
class SeedKeys:
    """The ids, keys and secrets of the demo merchants, which the seeds print; all None if nothing was seeded."""

    merchant_id: str | None = None
    api_key: str | None = None
    member_api_key: str | None = None
    webhook_secret: str | None = None
    ipn_secret: str | None = None
    users_api_key: str | None = None
    """The key of the demo merchant with users. The ready file does not include it."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A run's URLs and keys."""

    api_url: str
    ipn_url: str
    console_url: str
    admin_key: str
    database_url: str
    redis_url: str
    keys: SeedKeys

    def to_json(self) -> str:
        """Return the content of the ready file: one line of JSON."""
        fields = asdict(self)
        fields |= fields.pop("keys")
        del fields["users_api_key"]
        return json.dumps(fields)


def read_seed_keys(output: str) -> SeedKeys:
    """Return the keys from the seeds' output: its last line that is a JSON object. Raises StartError if there is none."""
    for line in reversed(output.splitlines()):
        if not line.lstrip().startswith("{"):
            continue
        try:
            printed = json.loads(line)
            return SeedKeys(**{name: printed.get(name) for name in SeedKeys.__dataclass_fields__})
        except ValueError:
            break
    raise StartError(f"The seeds printed no JSON object. Their output ends in {output[-200:]!r}.")


def prepare_ready_file(path: Path) -> None:
    """Delete the ready file of an earlier run, so that a script that waits for the file does not read it.

    Raises StartError if the file cannot be deleted, or cannot be written later.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StartError(f"The ready file {path} cannot be replaced ({error.strerror}).") from error
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise StartError(f"The ready file {path} cannot be written: its directory does not exist or is not writable.")


def write_ready_file(path: Path, ready: Ready) -> None:
    """Write the ready file atomically, so that no reader sees a part of it. Only its owner can read it, because it has keys.

    Raises StartError if it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(ready.to_json() + "\n")
        os.replace(fresh, path)
    except OSError as error:
        raise StartError(f"The ready file {path} cannot be written ({error.strerror}).") from error
