"""Structured logs on standard output: one JSON object per line, with the request id if there is one."""

import contextlib
import logging
import sys
from typing import Any

import msgspec
import structlog

from sandbox.domain.redaction import scrub


def configure_logs(level: str, log_format: str, process: str) -> None:
    """Set up logging for this process. Every line contains `process`: api, worker or ipn."""
    numeric = getattr(logging, level.upper())
    is_console = log_format == "console"
    renderer: Any = structlog.dev.ConsoleRenderer() if is_console else _render_json
    scrubbers: list[Any] = [lambda _, __, event: _scrubbed(event)] if is_console else []
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso", utc=True),
            structlog.processors.format_exc_info,
            _add_process(process),
            *scrubbers,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(_Output()),  # type: ignore[arg-type]  # structlog uses no other methods of a file
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=max(numeric, logging.WARNING))


class _Formatter(logging.Formatter):
    """Formats the log lines of libraries without the secrets in them."""

    def format(self, record: logging.LogRecord) -> str:
        return _scrub_lines(super().format(record))


class _Output:
    """Standard output. If it cannot be written, for example because the disk is full, work continues without logs."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()


def _add_process(process: str) -> Any:
    def add(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        event["process"] = process
        return event

    return add


def _render_json(_: Any, __: str, event: dict[str, Any]) -> str:
    line: str = msgspec.json.encode(event, enc_hook=repr).decode()
    # Check the whole line first: most lines have no secret, and only the others need scrubbing by field.
    return line if scrub(line) == line else msgspec.json.encode(_scrubbed(event), enc_hook=repr).decode()


def _scrubbed(event: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | None) else _scrub_lines(value if isinstance(value, str) else repr(value))
        for name, value in event.items()
    }


def _scrub_lines(text: str) -> str:
    return "\n".join(map(scrub, text.split("\n")))
