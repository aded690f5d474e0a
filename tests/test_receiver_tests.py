"""`/sandbox/v1/receiver-tests`: a test runs in the background, reports its progress, ends, and never shows the secret."""

import asyncio
import json
import threading
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from typing import Any, cast

import httpx
import pytest

from examples.receivers.broken import NoDedup
from examples.receivers.correct_python import Receiver, Server
from sandbox.domain.ids import MIN_ID
from sandbox.domain.unit import RequestContext
from sandbox.infrastructure.db.engine import DatabaseUnavailableError, close_pool, open_pool
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.webhooks.receiver_tests import service as service_module
from sandbox.webhooks.receiver_tests.checks import NAMES
from sandbox.webhooks.receiver_tests.requests import ReceiverTestBody
from sandbox.webhooks.receiver_tests.service import ReceiverTestService
from tests.harness.waiting import until
from tests.harness.work import units_of_work
from tests.harness.world import Stack, World
from tests.test_receiver_checks import SECRET, served

PATH = "/sandbox/v1/receiver-tests"
TOTAL = len(NAMES)
LANGUAGES = ("python", "node", "php", "go", "java")


@pytest.fixture(scope="module")
def correct() -> Iterator[Server]:
    with served(Receiver(SECRET)) as server:
        yield server


@pytest.fixture(scope="module")
def no_dedup() -> Iterator[Server]:
    with served(NoDedup(SECRET)) as server:
        yield server


def finished(world: World, body: dict[str, Any]) -> dict[str, Any]:
    """Start a test, wait for its end, and return it."""
    started = world.post(PATH, body)
    assert started.status_code == 202, started.text
    test = started.json()
    assert test["status"] == "RUNNING"
    path = f"{PATH}/{test['id']}"
    assert started.headers["location"] == path
    found: dict[str, Any] = until(lambda: (t := world.get(path).json())["status"] != "RUNNING" and t) or {}
    return found


def test_a_correct_receiver_passes_and_each_check_is_in_the_stream(world: World, correct: Server) -> None:
    events: list[dict[str, Any]] = []
    with world.client.stream("GET", "/sandbox/v1/stream", params={"types": "receiver_test.*", "limit": TOTAL + 1}) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith(": listening")
        test = finished(world, {"url": correct.url, "secret": SECRET, "probe_url": correct.probe_url})
        events += [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert (test["status"], test["error"]) == ("PASSED", None)
    assert [(check["name"], check["outcome"]) for check in test["checks"]] == [(name, "passed") for name in NAMES]
    assert test["summary"] == {
        "total": TOTAL, "passed": TOTAL, "failed": 0, "skipped": 0, "advice": 0, "judged_by": "statuses and effects",
        "text": f"{TOTAL} passed, 0 failed, 0 with advice, 0 skipped.",
    }  # fmt: skip
    assert {event["id"] for event in events} == {test["id"]}
    assert [event["done"] for event in events] == [*range(1, TOTAL + 1), TOTAL]
    assert {event["check"]["name"] for event in events[:-1]} == set(NAMES)
    assert (events[-1]["check"], events[-1]["status"]) == (None, "PASSED")


def test_a_finding_shows_what_was_sent_what_came_back_why_it_matters_and_the_fix(world: World, no_dedup: Server) -> None:
    test = finished(world, {"url": no_dedup.url, "secret": SECRET, "probe_url": no_dedup.probe_url})
    assert test["status"] == "FAILED"
    failed, also = [check for check in test["checks"] if check["outcome"] == "failed"]
    assert (failed["name"], also["name"]) == NoDedup.fails
    assert also["sent"]["curl"].startswith("seq 8 | xargs")
    assert "acted on it twice" in failed["why"]
    assert failed["sent"]["curl"].count("curl -i -X POST") == 2
    assert failed["sent"]["headers"]["webhook-id"] in failed["sent"]["curl"]
    assert failed["received"]["status"] == 200
    assert failed["received"]["error"] is None
    for check in test["checks"]:
        assert check["why"]
        assert check["cure"]["summary"]
        assert all(check["cure"][language] for language in LANGUAGES)


def test_without_a_probe_only_statuses_are_judged(world: World, no_dedup: Server) -> None:
    test = finished(world, {"url": no_dedup.url, "secret": SECRET})
    assert test["status"] == "PASSED"
    assert {check["name"] for check in test["checks"] if check["outcome"] == "skipped"} == {
        "handles_duplicate",
        "handles_concurrent_duplicates",
        "handles_out_of_order",
        "handles_every_change",
    }
    assert [one["seen_with"] for one in test["not_visible"]][:3] == ["--probe-url", "--app", None]
    assert test["summary"]["judged_by"] == "statuses"
    assert "only the receiver's status codes were judged" in test["summary"]["text"]


def journal_and_bundle(world: World) -> str:
    """Return the journal and the world bundle, once they include everything up to now."""
    last = world.get("/api/v1/balance").headers["x-request-id"]
    until(lambda: world.get("/sandbox/v1/requests", request_id=last).json()["data"])
    return world.get("/sandbox/v1/requests", limit=100).text + world.get("/sandbox/v1/world").text


JUNIT = {
    "testsuites": {"name", "time", "tests", "failures", "disabled", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "time", "skipped", "timestamp", "hostname", "id", "package"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "assertions", "time", "classname", "status"},
    "skipped": set(),
    "error": {"type", "message"},
    "failure": {"type", "message"},
    "system-out": set(),
}
"""The elements of Jenkins' schema that a report has, in the order in which they may appear, and their attributes."""


def check_schema(root: ElementTree.Element) -> None:
    """Check that a report has only elements and attributes of Jenkins' schema, with properties first."""
    for element in root.iter():
        assert set(element.keys()) <= JUNIT[element.tag], element.tag
        assert [child.tag for child in element] == sorted((child.tag for child in element), key=list(JUNIT).index)


def test_a_finished_test_is_also_junit_xml_and_a_running_one_is_not(world: World, no_dedup: Server) -> None:
    tokens = ["hjkmnpqrstvw", "wvtsrqpnmkjh"]
    body = {"url": f"{no_dedup.url}?t={tokens[0]}", "secret": SECRET, "probe_url": f"{no_dedup.probe_url}?t={tokens[1]}"}
    assert world.post(PATH, body | {"url": f"http://u:{tokens[0]}@127.0.0.1:9/"}).status_code == 400
    test = finished(world, body)
    response = world.get(f"{PATH}/{test['id']}/junit")
    assert not [token for token in tokens if token in journal_and_bundle(world)]
    assert (response.status_code, response.headers["content-type"]) == (200, "application/xml")
    root = ElementTree.fromstring(response.content)  # noqa: S314 -- our own XML
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped"), suite.get("errors")) == (str(TOTAL), "2", "0", "0")
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert list(cases) == list(NAMES)
    failure = cases["handles_duplicate"].find("failure")
    assert failure is not None
    assert "curl -i" in (failure.text or "")
    check_schema(root)
    without_probe = finished(world, {"url": no_dedup.url, "secret": SECRET})
    root = ElementTree.fromstring(world.get(f"{PATH}/{without_probe['id']}/junit").content)  # noqa: S314 -- our own XML
    check_schema(root)
    assert root[0].get("skipped") == "4"
    running = insert_running(world, "now()")
    refused = world.get(f"{PATH}/{running}/junit")
    assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")


def insert_running(world: World, heartbeat_at: str) -> str:
    """Insert a test that no process runs, and return its id."""
    test_id = str(uuid.uuid4())
    world.stack.execute(
        "INSERT INTO receiver_tests (merchant_id, id, url, signing, is_finished, interrupted, findings, created_at,"
        f" heartbeat_at) VALUES ($1, $2, 'http://127.0.0.1:9/', 'v1', false, false, '[]', now(), {heartbeat_at})",
        world.merchant_id,
        test_id,
    )
    return test_id


def test_a_test_whose_process_died_has_failed(world: World) -> None:
    alive, dead = insert_running(world, "now()"), insert_running(world, "now() - interval '20 seconds'")
    assert world.get(f"{PATH}/{alive}").json()["status"] == "RUNNING"
    found = world.get(f"{PATH}/{dead}").json()
    assert found["status"] == "FAILED"
    assert f"{TOTAL} checks are missing" in found["error"]
    suite = ElementTree.fromstring(world.get(f"{PATH}/{dead}/junit").content)[0]  # noqa: S314 -- our own XML
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "http://10.0.0.1/"}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"probe_url": "http://192.168.1.1/"}, "probe_url"),
        ({"secret": "whsec_!!!"}, "secret"),
        ({"secret": ""}, "secret"),
        ({"signing": "v1a"}, "secret"),
        ({"signing": "v2"}, "signing"),
        ({"signing": "custom"}, "custom_signing"),
        (
            {"custom_signing": {"header": "X-S", "algorithm": "sha256", "encoding": "hex", "template": "{body}"}},
            "custom_signing",
        ),
        ({"sekret": "x"}, "sekret"),
    ],
    ids=str,
)
def test_a_test_that_cannot_work_is_refused(world: World, change: dict[str, str], field: str) -> None:
    response = world.post(PATH, {"url": "http://127.0.0.1:9/", "secret": SECRET} | change)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert field in [error["field"] for error in response.json()["errors"]]
    assert SECRET[6:] not in response.text


def test_the_secret_is_nowhere_in_the_database_the_journal_or_the_report(world: World, no_dedup: Server) -> None:
    test = finished(world, {"url": f"{no_dedup.url}?token=hunter2hunter2", "secret": SECRET})
    assert SECRET[6:] not in json.dumps(test)
    stored = world.stack.execute("SELECT t::text FROM receiver_tests t WHERE merchant_id = $1", world.merchant_id)
    keys = world.stack.execute(
        "SELECT convert_from(body, 'UTF8') AS t FROM idempotency_keys WHERE merchant_id = $1", world.merchant_id
    )
    assert SECRET[6:] not in json.dumps([*stored, *keys])
    until(lambda: any(entry["method"] == "GET" for entry in journal(world)))
    details = [world.get(f"/sandbox/v1/requests/{entry['id']}").text for entry in journal(world)]
    assert not any(SECRET[6:] in text or "hunter2" in text for text in details)


def journal(world: World) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = world.get("/sandbox/v1/requests", limit=100).json()["data"]
    return [entry for entry in entries if entry["path"].startswith(PATH)]


def test_a_reset_keeps_a_test(world: World, no_dedup: Server) -> None:
    test = finished(world, {"url": no_dedup.url, "secret": SECRET})
    assert world.post("/sandbox/v1/reset").status_code == 200
    assert world.get(f"{PATH}/{test['id']}").json() == test


def test_only_the_newest_tests_are_kept(world: World) -> None:
    world.stack.execute(
        "INSERT INTO receiver_tests (merchant_id, id, url, signing, is_finished, interrupted, findings, created_at,"
        " heartbeat_at) SELECT $1, lpad(n::text, 32, '0')::uuid, 'http://127.0.0.1:9/', 'v1', true, false, '[]', now(), now()"
        " FROM generate_series(1, 120) n",
        world.merchant_id,
    )
    newest = finished(world, {"url": "http://127.0.0.1:9/", "secret": SECRET})
    kept = world.stack.execute("SELECT id::text FROM receiver_tests WHERE merchant_id = $1 ORDER BY id DESC", world.merchant_id)
    assert len(kept) == 100
    assert kept[0]["id"] == newest["id"]


def test_a_receiver_that_is_down_fails_one_check_and_the_others_are_skipped(world: World) -> None:
    test = finished(world, {"url": "http://127.0.0.1:9/", "secret": SECRET})
    outcomes = {check["name"]: check["outcome"] for check in test["checks"]}
    assert outcomes == {name: "failed" if name == "accepts_valid" else "skipped" for name in NAMES}
    assert "connection refused" in test["checks"][0]["why"]


async def test_a_merchants_concurrent_tests_are_limited(world: World) -> None:
    receiver = Hanging(SECRET)
    with served(receiver) as server:
        body = {"url": server.url, "secret": SECRET}
        async with httpx.AsyncClient(base_url=world.stack.api_url, headers={"X-API-KEY": world.api_key}) as client:
            # There are two API processes, each with a limit of two.
            answers = await asyncio.gather(*(client.post(PATH, json=body) for _ in range(12)))
        statuses = [answer.status_code for answer in answers]
        receiver.gate.set()
        assert set(statuses) <= {202, 429}
        assert 2 <= statuses.count(202) <= 4
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("RATE_LIMITED", "2")
        until(lambda: all(_is_over(world, answer) for answer in answers if answer.status_code == 202))


def _is_over(world: World, started: httpx.Response) -> bool:
    return bool(world.get(started.headers["location"]).json()["status"] != "RUNNING")


# ---- tests that end early


class Hanging(Receiver):
    """Answers when the test opens the gate."""

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        self.gate, self.was_called = threading.Event(), threading.Event()

    def handle(self, method: str, headers: Any, body: bytes) -> int:
        self.was_called.set()
        self.gate.wait(30)
        return super().handle(method, headers, body)


@pytest.fixture
async def service(stack: Stack) -> AsyncIterator[ReceiverTestService]:
    """Yield a service in this process, connected to the sandbox's database."""
    await open_pool(stack.database_url, 4)
    work = units_of_work()
    service = ReceiverTestService(work, [ip_network("127.0.0.0/8")], lambda merchant_id, notes: None, {})
    service.start()
    try:
        yield service
    finally:
        await service.close()
        await work.close()
        await close_pool()


async def _start(service: ReceiverTestService, world: World, url: str) -> str:
    context = RequestContext(world.merchant_id, None, "r", PATH, "")
    result = await service.create_receiver_test(context, ReceiverTestBody(url=url, secret=SECRET))
    test_id: str = json.loads(result.body)["id"]
    return test_id


async def test_a_test_fails_if_its_process_is_stopped(service: ReceiverTestService, world: World) -> None:
    receiver = Hanging(SECRET)
    with served(receiver) as server:
        test_id = await _start(service, world, server.url)
        await asyncio.to_thread(receiver.was_called.wait, 30)
        await service.close()
        receiver.gate.set()
    found = world.get(f"{PATH}/{test_id}").json()
    assert (found["status"], found["checks"]) == ("FAILED", [])
    assert f"{TOTAL} checks are missing" in found["error"]


async def test_a_deleted_merchants_test_ends(service: ReceiverTestService, stack: Stack) -> None:
    receiver = Hanging(SECRET)
    with served(receiver) as server, World.create(stack) as world:
        await _start(service, world, server.url)
        await asyncio.to_thread(receiver.was_called.wait, 30)
        path = f"/sandbox/v1/merchants/{world.merchant_id}"
        async with httpx.AsyncClient(base_url=stack.api_url, headers={"X-ADMIN-KEY": stack.admin_key}, timeout=60) as client:
            assert (await client.delete(path)).status_code == 204
        deadline = asyncio.get_running_loop().time() + 30
        while service.running(world.merchant_id):  # until the next heartbeat notices
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
        remaining = "SELECT id FROM receiver_tests WHERE merchant_id = $1"
        assert await asyncio.to_thread(stack.execute, remaining, world.merchant_id) == []
        receiver.gate.set()


@pytest.mark.parametrize("failures", [2, 3])
async def test_the_end_of_a_test_is_stored_after_a_short_outage_and_a_long_outage_is_reported(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    calls = 0

    async def write(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise DatabaseUnavailableError(ConnectionRefusedError())

    monkeypatch.setattr(service_module, "write_rows", write)
    monkeypatch.setattr(service_module, "_SAVE_SECONDS", 0.001)
    monkeypatch.setattr(service_module, "_SAVE_ATTEMPTS", 3)
    tests = ReceiverTestService(cast("UnitOfWorkRunner", None), (), lambda merchant_id, notes: None, {})
    if failures < 3:
        await tests._save_end(MIN_ID, MIN_ID, [])
    else:
        with pytest.raises(DatabaseUnavailableError):
            await tests._save_end(MIN_ID, MIN_ID, [])
    assert calls == 3
