"""`psp certify`: exit codes, the report, and `--app`, which kills and restarts the receiver."""

import re
import socket
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from examples.receivers.broken import NoDedup
from examples.receivers.correct_python import Receiver, Server
from sandbox.webhooks.outbound.sender import WebhookSender
from sandbox.webhooks.receiver_tests.application import Application, ApplicationError
from sandbox.webhooks.receiver_tests.checks import NAMES
from sandbox.webhooks.receiver_tests.restart import check_restart
from sandbox.webhooks.receiver_tests.runner import Target
from sandbox.webhooks.signing import dialects
from sandbox.webhooks.signing.dialects import CustomSigning
from tests.harness.command import run, run_json
from tests.harness.world import World
from tests.test_receiver_checks import EFFECTS, answering, findings, having
from tests.test_receiver_tests import SECRET, TOTAL, served


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = WebhookSender([ip_network("127.0.0.0/8")])
    yield sender
    await sender.close()


@pytest.fixture(scope="module")
def correct() -> Iterator[Server]:
    with served(Receiver(SECRET)) as server:
        yield server


@pytest.fixture(scope="module")
def no_dedup() -> Iterator[Server]:
    with served(NoDedup(SECRET)) as server:
        yield server


def test_certify_exits_with_0_for_a_correct_receiver_and_writes_junit(world: World, correct: Server, tmp_path: Any) -> None:
    path = tmp_path / "junit.xml"
    arguments = ("certify", correct.url, "--secret", SECRET, "--probe-url", correct.probe_url, "--junit", str(path))
    result = run(world, *arguments)
    assert result.exit_code == 0, result.output
    assert f"PASSED: {TOTAL} passed, 0 failed" in result.stdout
    assert ElementTree.parse(path).getroot()[0].get("failures") == "0"  # noqa: S314 -- our own XML


def test_certify_exits_with_1_and_explains_each_failure(world: World, no_dedup: Server, tmp_path: Any) -> None:
    page = tmp_path / "report.html"
    arguments = ("certify", no_dedup.url, "--secret", SECRET, "--probe-url", no_dedup.probe_url, "--report-file", str(page))
    result = run(world, *arguments, "--language", "go")
    text = page.read_text(encoding="utf-8")
    assert "<strong>Failed</strong>" in text
    assert 2 * text.count('<article class="finding wrong">') == result.stdout.count("FAILED  ")  # in a list, and explained
    assert SECRET not in text
    assert result.exit_code == 1
    first, *_ = result.stdout.splitlines()
    assert first == "FAILED  handles_duplicate"
    for text in ("acted on it twice", "curl -i -X POST", "Store the webhook-id under a unique key", "tx.Commit()"):
        assert text in result.stdout
    assert SECRET[6:] not in result.output
    assert "handles_duplicate" in result.stderr
    shown = run_json(world, *arguments, code=1)
    assert shown["status"] == "FAILED"
    assert len(shown["checks"]) == TOTAL


# ---- a custom dialect


SLACK = CustomSigning(
    header="X-Slack-Signature",
    algorithm="sha256",
    encoding="hex",
    template="v0:{timestamp}:{body}",
    prefix="v0=",
    timestamp_header="X-Slack-Request-Timestamp",
)


async def test_a_receiver_of_a_custom_dialect_can_be_tested(sender: WebhookSender) -> None:
    def respond(method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        stamp = headers.get("x-slack-request-timestamp", "")
        if not re.fullmatch("[0-9]{1,12}", stamp) or abs(time.time() - int(stamp)) > 300:
            return 401, {}, b""
        right = dialects.signature_headers("custom", ["a secret"], "", int(stamp), body, SLACK)["X-Slack-Signature"]
        return (200 if right == headers.get("x-slack-signature") else 401), {}, b""

    with answering(respond) as url:
        found = await findings(sender, Target(url, "a secret", "custom", custom=SLACK))
    assert having(found, "skipped") == EFFECTS | {"accepts_rotation", "refuses_unknown_scheme"}
    assert having(found, "failed") == set(), found


# ---- --app


def command(kind: str, directory: Path) -> tuple[list[str], str]:
    """Return the command of a receiver with a database, and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "examples.receivers.durable", kind, "--secret", SECRET, "--file", str(directory / "db")]
    if kind == "forgets":
        words = [sys.executable, "-m", "examples.receivers.correct_python", "--secret", SECRET]
    return [*words, "--port", str(port)], f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("kind", "outcome", "text"),
    [
        ("correct", "passed", ""),
        ("forgets", "failed", "lost, or it has forgotten them"),
        ("answers_first", "failed", "lost, or it has forgotten them"),
        ("stores_id_first", "failed", "the retry of an interrupted one counts as a duplicate"),
    ],
)
async def test_a_receiver_must_survive_being_killed_in_a_burst(
    sender: WebhookSender, kind: str, outcome: str, text: str, tmp_path: Path
) -> None:
    words, url = command(kind, tmp_path)
    async with Application(words, f"{url}/webhooks") as application:
        found = await check_restart(sender, Target(f"{url}/webhooks", SECRET, probe_url=f"{url}/probe"), application)
    assert found.outcome == outcome, found.observation
    assert text in found.observation


async def test_an_application_that_cannot_be_tested_says_why(tmp_path: Path) -> None:
    with pytest.raises(ApplicationError, match="Cannot start"):
        await Application([str(tmp_path / "missing")], "http://127.0.0.1:9/").start()
    with pytest.raises(ApplicationError, match="ended with code 3"):
        await Application([sys.executable, "-c", "raise SystemExit(3)"], "http://127.0.0.1:9/").start()
    with served(Receiver(SECRET)) as server, pytest.raises(ApplicationError, match="listens on port"):
        async with Application(["true"], server.url):
            raise AssertionError


def test_certify_with_app_adds_the_check_of_a_restart(world: World, tmp_path: Path) -> None:
    words, url = command("correct", tmp_path)
    path = tmp_path / "junit.xml"
    arguments = ("certify", f"{url}/webhooks", "--secret", SECRET, "--app", " ".join(words))
    assert run(world, *arguments).exit_code == 2
    test = run_json(world, *arguments, "--probe-url", f"{url}/probe", "--junit", str(path))
    assert [check["name"] for check in test["checks"]] == [*NAMES, "survives_restart"]
    assert (test["status"], test["summary"]["passed"], test["summary"]["total"]) == ("PASSED", TOTAL + 1, TOTAL + 1)
    assert "--app" not in {one["seen_with"] for one in test["not_visible"]}
    assert ElementTree.parse(path).getroot()[0].get("tests") == str(TOTAL + 1)  # noqa: S314 -- our own XML
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
