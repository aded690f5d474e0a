"""Structured logs: one JSON object a line on standard output, with the request id wherever there is one."""

import contextlib
import logging
import sys
from typing import Any

import msgspec
import structlog

from sandbox.domain.redaction import scrub


def configure_logs(level: str, log_format: str, process: str) -> None:
    """Set up logging for this process. `process` names it in every line: api, worker or ipn."""
    numeric = getattr(logging, level.upper())
    is_console = log_format == "console"
    renderer: Any = structlog.dev.ConsoleRenderer() if is_console else _render_json
    before: list[Any] = [lambda _, __, event: _scrubbed(event)] if is_console else []
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso", utc=True),
            structlog.processors.format_exc_info,
            _named(process),
            *before,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(_Output()),  # type: ignore[arg-type]  # no more of a file is used
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=max(numeric, logging.WARNING))


class _Formatter(logging.Formatter):
    """Lines of libraries, without the secrets in them."""

    def format(self, record: logging.LogRecord) -> str:
        return _scrub_lines(super().format(record))


class _Output:
    """Standard output. When it cannot be written, to a full disk, say, the work goes on without a log of it."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()


def _named(process: str) -> Any:
    def name(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        event["process"] = process
        return event

    return name


def _render_json(_: Any, __: str, event: dict[str, Any]) -> str:
    line: str = msgspec.json.encode(event, enc_hook=repr).decode()
    # Whatever was logged, by whomever. Most lines hold nothing that needs a second look.
    return line if scrub(line) == line else msgspec.json.encode(_scrubbed(event), enc_hook=repr).decode()


def _scrubbed(event: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | None) else _scrub_lines(value if isinstance(value, str) else repr(value))
        for name, value in event.items()
    }


def _scrub_lines(text: str) -> str:
    return "\n".join(map(scrub, text.split("\n")))
