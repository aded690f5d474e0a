"""Structured logs on standard output: one JSON object per line, with the request id if there is one.

Lines are collected for a few milliseconds and written together: one write per line would be one system call per line.
Warnings and errors are written immediately, with all lines before them.
"""

import asyncio
import atexit
import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from sandbox.domain.redaction import has_secret, scrub

FLUSH_SECONDS: Final = 0.02
"""How long a line can stay in the buffer. SIGKILL loses the buffered lines."""
_MAX_LINES: Final = 200
"""Maximum number of buffered lines. If one more is added, all are written."""


def configure_logs(level: str, log_format: str, process: str) -> None:
    """Set up logging for this process. Every line contains `process`: api, worker or ipn."""
    numeric = getattr(logging, level.upper())
    processors: list[Any] = [_finish(process), _console_renderer() if log_format == "console" else _render_json]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=lambda *_: _LineLogger(_output),
        cache_logger_on_first_use=True,
    )
    _output.buffers = True
    handler = logging.StreamHandler(_output)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=max(numeric, logging.WARNING))
    atexit.register(_output.flush)


def end_log_buffering() -> None:
    """Write the buffered lines now, and each later line immediately. Call this before the event loop or the process ends."""
    _output.buffers = False
    _output.flush()


class _Formatter(logging.Formatter):
    """Formats the log lines of libraries without the secrets in them."""

    def format(self, record: logging.LogRecord) -> str:
        return _scrub_lines(super().format(record))


class LineBuffer:
    """Standard output. If it cannot be written, for example because the disk is full, work continues without logs.

    Any thread may add lines. Without a running event loop there is no timer, and each line is written immediately.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self.buffers = True
        """Whether lines are buffered."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop in which a timer is set."""

    def write(self, text: str) -> None:
        """Buffer text, which includes its line ends."""
        self._lines.append(text)
        if len(self._lines) > _MAX_LINES or not self._has_timer():
            self.flush()

    def flush(self) -> None:
        """Write the buffered lines now."""
        # Only one thread at a time removes lines, so none is written twice. Lines that others add meanwhile stay buffered.
        with self._lock:
            lines = self._lines[:]
            del self._lines[: len(lines)]
            if lines:
                with contextlib.suppress(OSError):
                    sys.stdout.write("".join(lines))
                    sys.stdout.flush()

    def _has_timer(self) -> bool:
        if not self.buffers:
            return False
        if self._loop is None or self._loop.is_closed():
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:  # in this thread, no loop runs
                return False
            self._loop.call_later(FLUSH_SECONDS, self._on_timer)
        return True

    def _on_timer(self) -> None:
        self._loop = None
        self.flush()


_output: Final = LineBuffer()
_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode


class _LineLogger:
    """The logger that receives structlog's rendered lines."""

    def __init__(self, output: LineBuffer) -> None:
        self._output = output

    def info(self, line: str) -> None:
        self._output.write(line + "\n")

    def warning(self, line: str) -> None:
        self._output.write(line + "\n")
        self._output.flush()

    debug = info
    error = critical = warning


def _finish(process: str) -> Callable[[Any, str, dict[str, Any]], dict[str, Any]]:
    # One processor instead of structlog's four: each costs a call per line.
    def finish(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        if "exc_info" in event:
            structlog.processors.format_exc_info(logger, method, event)
        event["level"] = method
        event["timestamp"] = datetime.now(UTC)
        event["process"] = process
        return event

    return finish


def _render_json(_: Any, __: str, event: dict[str, Any]) -> str:
    line: str = _encode(event).decode()
    # Check the whole line first. Most lines have no secret; only a line with one must be scrubbed field by field.
    return _encode(_scrubbed(event)).decode() if has_secret(line) else line


def _console_renderer() -> Callable[[Any, str, dict[str, Any]], str]:
    renderer: Any = structlog.dev.ConsoleRenderer()

    def render(logger: Any, method: str, event: dict[str, Any]) -> str:
        event["timestamp"] = event["timestamp"].isoformat().replace("+00:00", "Z")
        line: str = renderer(logger, method, _scrubbed(event))
        return line

    return render


def _scrubbed(event: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        if isinstance(value, int | float | datetime | None)
        else _scrub_lines(value if isinstance(value, str) else repr(value))
        for name, value in event.items()
    }


def _scrub_lines(text: str) -> str:
    return "\n".join(map(scrub, text.split("\n")))
