"""Structured logs: one JSON object a line on standard output, with the request id wherever there is one."""

import contextlib
import logging
import sys
from typing import Any

import msgspec
import structlog


def configure_logs(level: str, log_format: str, process: str) -> None:
    """Set up logging for this process. `process` names it in every line: api, worker or ipn."""
    numeric = getattr(logging, level.upper())
    renderer: Any = structlog.dev.ConsoleRenderer() if log_format == "console" else _render_json
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso", utc=True),
            structlog.processors.format_exc_info,
            _named(process),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(_Output()),  # type: ignore[arg-type]  # no more of a file is used
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stdout, level=max(numeric, logging.WARNING), format="%(levelname)s %(name)s %(message)s")


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
    return msgspec.json.encode(event, enc_hook=repr).decode()
