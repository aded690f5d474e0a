"""With OTEL_EXPORTER_OTLP_ENDPOINT, one trace holds the request, the unit of work, the payout's changes and the attempts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.domain import trace
from sandbox.infrastructure import settings
from sandbox.infrastructure.settings import Settings, SettingsError
from tests.harness.loopback import LoopbackServer, QuietHandler
from tests.harness.own_sandbox import own_sandbox
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


class Collector:
    """An OTLP/HTTP receiver on loopback."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.spans: list[tuple[str, Any]] = []
        """The name of the process that exported each span, and the span."""
        spans = self.spans

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                for resource_spans in request.resource_spans:
                    resource = {a.key: a.value.string_value for a in resource_spans.resource.attributes}
                    assert resource["service.name"] == "psp-sandbox"
                    spans.extend((resource["psp.process"], span) for part in resource_spans.scope_spans for span in part.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

        self.server = LoopbackServer(Handler)

    def trace(self, traceparent: str) -> list[tuple[str, Any]]:
        return [(p, span) for p, span in list(self.spans) if span.trace_id.hex() == trace.trace_id(traceparent)]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra psp-sandbox[otel]")
    collector = Collector()
    with collector.server:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Path]]:
    """Yield a merchant of a sandbox that exports its spans, and the folder of the sandbox's logs."""
    folder = tmp_path_factory.mktemp("traced")
    env = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")} | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server.server_address[1]}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with (
        own_sandbox(folder, "--data", str(folder / "data"), env=env) as (_, stack),
        World.create(stack, opening_balance="1000.00") as world,
    ):
        yield world, folder / "data" / "logs"


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


@pytest.mark.parametrize("given", [GIVEN, None])
def test_one_trace_holds_everything_that_belongs_to_a_payout(
    traced: tuple[World, Path], collector: Collector, receiver: Receiver, given: str | None
) -> None:
    world, _ = traced
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()["id"]
    response = world.post("/api/v1/payouts", world.payout_body("0001"), headers={"traceparent": given} if given else {})
    request_id, payout = response.headers["x-request-id"], response.json()
    receiver.wait_for("payout.succeeded", payout_id=payout["id"])
    (traceparent,) = {received.headers["traceparent"] for received in receiver.received}
    assert traceparent == (given or trace.derive(request_id))
    changes = ["payout.created", "payout.processing", "payout.succeeded"]
    attempts = [f"webhook {change}" for change in changes]
    expected = {*changes, *attempts, "POST /api/v1/payouts", "unit of work"}
    until(lambda: {span.name for _, span in collector.trace(traceparent)} >= expected)
    found = collector.trace(traceparent)
    assert {span.name for _, span in found} == expected
    by_name = {span.name: (process, span) for process, span in found}
    process, request = by_name["POST /api/v1/payouts"]
    units = {span.span_id for _, span in found if span.name == "unit of work"}
    root = bytes.fromhex(trace.span_id(traceparent))
    # The caller's span is the parent of the request's. Without a caller's, the request's span is the root of the trace.
    assert (request.parent_span_id, request.span_id == root) == ((root, False) if given else (b"", True))
    assert (process, attributes(request)["http.response.status_code"]) == ("api", 201)
    assert {span.parent_span_id for _, span in found if span.name in ("unit of work", *attempts)} == {root}
    assert {span.parent_span_id for _, span in found if span.name in changes} <= units
    assert attributes(by_name["payout.succeeded"][1])["psp.payout.id"] == payout["id"]
    assert by_name["payout.succeeded"][0] == "worker"
    process, attempt = by_name["webhook payout.succeeded"]
    assert (process, attributes(attempt)["http.response.status_code"]) == ("worker", 200)
    world.client.delete(f"/api/v1/webhook-endpoints/{endpoint}")


def test_a_trace_that_the_caller_does_not_sample_is_not_exported(traced: tuple[World, Path], collector: Collector) -> None:
    world, _ = traced
    world.post("/api/v1/payouts", world.payout_body("0004"), headers={"traceparent": UNSAMPLED})
    later = world.post("/api/v1/payouts", world.payout_body("0004")).headers["x-request-id"]
    until(lambda: len(collector.trace(trace.derive(later))) >= 3)
    assert collector.trace(UNSAMPLED) == []


def test_a_failed_request_is_an_error(traced: tuple[World, Path], collector: Collector) -> None:
    world, _ = traced
    assert world.post("/sandbox/v1/faults", {"target": "api", "kind": "error", "status": 500, "count": 1}).status_code == 201
    until(lambda: world.get("/api/v1/balance").status_code == 500)
    until(lambda: any(span.status.message == "status 500" for _, span in list(collector.spans)))


def test_log_lines_name_the_trace(traced: tuple[World, Path]) -> None:
    world, logs = traced
    response = world.post("/api/v1/payouts", world.payout_body("0004"), headers={"traceparent": GIVEN})
    request_id = response.headers["x-request-id"]

    def trace_ids() -> set[str]:
        lines = [line for file in logs.iterdir() for line in file.read_text().splitlines() if request_id in line]
        return {json.loads(line[line.index("{") :])["trace_id"] for line in lines if '"event":"request"' in line}

    assert until(trace_ids) == {trace.trace_id(GIVEN)}


def test_without_the_extra_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {
        "DATABASE_URL": "postgresql:///x", "REDIS_URL": "redis:///", "SANDBOX_SECRET_KEY": "A" * 43 + "=",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    }  # fmt: skip
    monkeypatch.setattr(settings, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"install psp-sandbox\[otel\]"):
        Settings.load(env)
    assert not Settings.load(env | {"OTEL_SDK_DISABLED": "true"}).exports_traces
    assert not Settings.load(env | {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}).exports_traces


def test_without_the_setting_nothing_of_opentelemetry_is_imported() -> None:
    text = (
        "import sys, sandbox.server.app, worker.main; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0
