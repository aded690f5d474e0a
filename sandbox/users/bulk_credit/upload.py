"""Receive a bulk credit's file and stream it to disk, so that no process holds all of it in memory."""

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from typing import Annotated, BinaryIO, Final

import msgspec
from multipart import (  # type: ignore[import-untyped]  # it has no type annotations
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from sandbox.domain.errors import Problem, invalid, unavailable
from sandbox.http.request import PayloadTooLarge, Request

MAX_FILE_SIZE: Final = 50 * 1024 * 1024
MAX_FORM_SIZE: Final = MAX_FILE_SIZE + 64 * 1024
_MAX_OTHER_PARTS: Final = 4
_MAX_SIZE_IN_MEMORY: Final = 256 * 1024


File = Annotated[
    str,
    msgspec.Meta(
        description="A CSV file of at most 50 MB with the header `uuid,amount`. Each row has a user's id and an amount.",
        extra_json_schema={"format": "binary"},
    ),
]


class UploadForm(msgspec.Struct, kw_only=True):
    """The form of `POST /wallet/bulk-credit`."""

    file: File


@dataclass(frozen=True, slots=True)
class Upload:
    """A received file, positioned at its start, and the SHA-256 of its content. Close the file when done."""

    file: BinaryIO
    digest: bytes


async def receive_file(request: Request) -> Upload:
    """Return the part `file` of a multipart body.

    Raises UNSUPPORTED_MEDIA_TYPE, PAYLOAD_TOO_LARGE above MAX_FILE_SIZE, VALIDATION_ERROR if the body is not valid multipart
    or does not have the part exactly once, or UNAVAILABLE if the file cannot be written to disk.
    """
    kind, options = parse_options_header(request.header("content-type") or "")
    if kind != "multipart/form-data":
        raise Problem(
            "UNSUPPORTED_MEDIA_TYPE", "Send Content-Type: multipart/form-data, with the CSV file as the part named `file`."
        )
    spooled = tempfile.SpooledTemporaryFile(max_size=_MAX_SIZE_IN_MEMORY)  # noqa: SIM115 -- the caller closes it
    try:
        digest = await _receive(request, options.get("boundary", ""), spooled)
        spooled.seek(0)
    except BaseException as error:
        with contextlib.suppress(OSError):  # closing repeats the write that failed
            spooled.close()
        if isinstance(error, OSError):
            # Do not put str(error) into a response: it contains paths of this host.
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise unavailable(f"The server cannot write the uploaded file to disk ({reason}).", 30) from error
        raise
    return Upload(spooled, digest)  # type: ignore[arg-type]  # a SpooledTemporaryFile is a BinaryIO at run time


async def _receive(request: Request, boundary: str, target: "tempfile.SpooledTemporaryFile[bytes]") -> bytes:
    """Write the part to `target` and return the SHA-256 of its content. Raises as `receive_file` does, or OSError."""
    digest = hashlib.sha256()
    found = False
    segment: MultipartSegment | None = None
    try:
        parser = PushMultipartParser(boundary, max_segment_size=MAX_FILE_SIZE, max_segment_count=_MAX_OTHER_PARTS + 1)
        with parser:
            async for chunk in request.stream():
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        segment = event
                        if segment.name == "file":
                            if found:
                                raise invalid(
                                    "file", "must be sent exactly once: the form has more than one part with this name"
                                )
                            found = True
                    elif event and segment is not None and segment.name == "file":
                        digest.update(event)
                        target.write(event)
    except ParserLimitReached:
        if segment is None or segment.bytes_received <= MAX_FILE_SIZE:
            raise invalid("body", f"must have at most {_MAX_OTHER_PARTS + 1} parts, with short headers") from None
        raise _too_large() from None
    except PayloadTooLarge:
        raise _too_large() from None
    except MultipartError as error:
        raise invalid("body", f"is not valid multipart/form-data: {str(error)[:100]}") from None
    if not found:
        raise invalid("file", "is required: send the CSV file as the form part named `file`")
    return digest.digest()


def _too_large() -> Problem:
    return Problem("PAYLOAD_TOO_LARGE", f"The file is larger than {MAX_FILE_SIZE // 1024**2} MB; split it.")
