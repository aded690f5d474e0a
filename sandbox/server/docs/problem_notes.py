"""Notes for each problem's page: when it happens, whether to retry, and where to read more. Their texts are in a file."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from sandbox.domain.idempotency_key import MAX_KEY_LENGTH


@dataclass(frozen=True, slots=True)
class Note:
    """The explanation of one problem code."""

    when: tuple[str, ...]
    """The situations in which the API responds with it."""
    retry: str
    """Whether the same request can succeed later."""
    guide: str
    """The guide's page about it, by its path relative to /docs/guide/."""


@functools.cache
def notes() -> Mapping[str, Note]:
    """Return the notes by code. They are read when a page is shown, and once."""
    found: dict[str, Any] = tomllib.loads(files(__package__).joinpath("problem_notes.toml").read_text("utf-8"))
    return {
        code: Note(
            tuple(text.replace("{max_key_length}", str(MAX_KEY_LENGTH)) for text in note["when"]),
            found["retry"].get(note["retry"], note["retry"]),
            note.get("guide", "errors"),
        )
        for code, note in found["notes"].items()
    }
