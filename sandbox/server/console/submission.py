"""Read a submitted form: URL-encoded or, with a file, multipart."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from multipart import MultipartError, MultipartParser, parse_options_header  # type: ignore[import-untyped]  # it has no type annotations

from sandbox.domain.errors import Problem, invalid
from sandbox.http.request import Request

MAX_SIZE: Final = 16 * 1024 * 1024
"""In bytes, with the file. Larger files can be sent to the API."""
MAX_FIELDS: Final = 500


@dataclass(frozen=True, slots=True)
class Submission:
    """The fields of a form in order, and the file that was chosen, if any."""

    fields: Sequence[tuple[str, str]]
    uploaded: bytes | None = None

    @property
    def file(self) -> bytes | None:
        """The file that was chosen, or else the text in the field `_file`."""
        if self.uploaded is not None:
            return self.uploaded
        return self.last("_file").encode("utf-8", "replace") or None

    def last(self, name: str) -> str:
        """Return a field's last value, or an empty string."""
        return next((value for known, value in reversed(self.fields) if known == name), "")

    def values(self) -> dict[str, list[str]]:
        """Return field name → its values."""
        found: dict[str, list[str]] = {}
        for name, value in self.fields:
            found.setdefault(name, []).append(value)
        return found


async def read(request: Request) -> Submission:
    """Return the form in a request's body. Raises PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE or VALIDATION_ERROR."""
    kind, options = parse_options_header(request.header("content-type") or "")
    content = await request.read()
    try:
        if kind == "application/x-www-form-urlencoded":
            return Submission(parse_qsl(content.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
        if kind == "multipart/form-data":
            parts = MultipartParser(
                io.BytesIO(content),
                options.get("boundary", ""),
                part_limit=MAX_FIELDS,
                memory_limit=MAX_SIZE,
                spool_limit=MAX_SIZE,
            ).parts()
            files = [part.raw for part in parts if part.filename]
            return Submission([(part.name, part.value) for part in parts if not part.filename], files[0] if files else None)
    except (ValueError, MultipartError) as error:
        raise invalid("form", "is not a valid form, or has too many fields") from error
    raise Problem("UNSUPPORTED_MEDIA_TYPE", "Send a form.")
