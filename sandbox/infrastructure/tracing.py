"""OpenTelemetry: export spans over OTLP/HTTP. Off unless `start` was called; then `span` exports finished spans.

A span is created when its work has ended, so code that is not traced pays only for the check `is_on`. The packages come with
the extra `psp-sandbox[otel]`, and are imported only by `start`.
"""

import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, Literal

from sandbox.domain import trace

Kind = Literal["SERVER", "CLIENT", "INTERNAL"]
_STOP_SECONDS: Final = 2.0
"""How long a process that ends waits for its last spans to be exported."""


class _Ids:
    """Ids of new spans: random, or those of a trace that the sandbox started, for the span of the request that started it."""

    def __init__(self, random: Any) -> None:
        """`random` is OpenTelemetry's own source of ids."""
        self._random = random
        self.root: str | None = None
        """The `traceparent` of the next span; None for random ids."""

    def generate_trace_id(self) -> int:
        return self._random.generate_trace_id() if self.root is None else int(trace.trace_id(self.root), 16)

    def generate_span_id(self) -> int:
        return self._random.generate_span_id() if self.root is None else int(trace.span_id(self.root), 16)

    def is_trace_id_random(self) -> bool:
        return self.root is None


class _Exporter:
    """Creates spans and hands them to OpenTelemetry, which exports them in batches from its own thread."""

    def __init__(self, process: str) -> None:
        from opentelemetry import trace as api
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        self._api = api
        self._ids = _Ids(RandomIdGenerator())
        # OpenTelemetry reads its settings from the environment. Only the default name is ours.
        os.environ.setdefault("OTEL_SERVICE_NAME", "psp-sandbox")
        resource = Resource.create({"psp.process": process})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("psp-sandbox")

    def span(
        self,
        name: str,
        traceparent: str,
        seconds: float,
        kind: Kind,
        attributes: Mapping[str, Any],
        error: str | None,
        root: bool,
    ) -> str:
        api, ended = self._api, time.time_ns()
        parent = api.SpanContext(
            int(trace.trace_id(traceparent), 16),
            int(trace.span_id(traceparent), 16),
            is_remote=True,
            trace_flags=api.TraceFlags(int(traceparent[-2:], 16)),
        )
        context = api.set_span_in_context(api.INVALID_SPAN if root else api.NonRecordingSpan(parent))
        self._ids.root = traceparent if root else None
        span = self._tracer.start_span(
            name,
            context,
            api.SpanKind[kind],
            {name: value for name, value in attributes.items() if value is not None},
            start_time=ended - round(seconds * 1e9),
            set_status_on_exception=False,
        )
        self._ids.root = None
        if error is not None:
            span.set_status(api.Status(api.StatusCode.ERROR, error))
        span.end(ended)
        found = span.get_span_context()
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags) & 1:02x}"

    def stop(self) -> None:
        # If the collector does not respond, the shutdown takes up to half a minute.
        shutdown = threading.Thread(target=self._provider.shutdown, daemon=True)
        shutdown.start()
        shutdown.join(_STOP_SECONDS)


_exporter: _Exporter | None = None


def start(process: str) -> None:
    """Export this process's spans from now on, to OTEL_EXPORTER_OTLP_ENDPOINT. Raises ImportError without the extra."""
    global _exporter
    _exporter = _Exporter(process)


def stop() -> None:
    """Export the last spans, for at most 2 s. Call this before the process ends."""
    global _exporter
    if _exporter is not None:
        _exporter.stop()
        _exporter = None


def is_on() -> bool:
    """Return whether spans are exported."""
    return _exporter is not None


def span(
    name: str,
    traceparent: str,
    seconds: float,
    attributes: Mapping[str, Any],
    *,
    kind: Kind = "INTERNAL",
    error: str | None = None,
    is_root: bool = False,
) -> str:
    """Export a span that lasted `seconds` and ends now. Return its own `traceparent`, the parent of further spans.

    `traceparent` is its parent; if `is_root`, it is the span itself. Attributes that are None are left out. `error` says what
    failed, if anything. A trace that its caller does not sample is not exported.
    """
    return traceparent if _exporter is None else _exporter.span(name, traceparent, seconds, kind, attributes, error, is_root)
