"""`psp certify` passes correct receivers and finds exactly the mistake of each broken one."""

import base64
import contextlib
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import standardwebhooks
import stripe
import svix.webhooks

from examples.receivers import broken
from examples.receivers.broken import MISTAKES, AnswersAfterProcessing
from examples.receivers.correct_python import Receiver, Server
from sandbox.webhooks.outbound.sender import WebhookSender
from sandbox.webhooks.receiver_tests import runner
from sandbox.webhooks.receiver_tests.checks import NAMES
from sandbox.webhooks.receiver_tests.judges import Limits
from sandbox.webhooks.receiver_tests.results import StoredFinding, shown
from sandbox.webhooks.receiver_tests.runner import ReceiverRun, Target
from sandbox.webhooks.signing import dialects, standard_webhooks
from tests.harness.loopback import LoopbackServer, QuietHandler

ROOT = Path(__file__).parent.parent
SECRET = standard_webhooks.new_secret(bytes(range(32)))
PRIVATE_KEY = standard_webhooks.new_private_key(bytes(range(32)))
EFFECTS = {"handles_duplicate", "handles_out_of_order", "handles_concurrent_duplicates", "handles_every_change"}
UNTIMED = {
    "refuses_stale_timestamp",
    "refuses_future_timestamp",
    "refuses_malformed_timestamp",
    "accepts_recent_timestamp",
}
DEFAULTS = Limits()
Respond = Callable[[str, Mapping[str, str], bytes], tuple[int, dict[str, str], bytes]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sender() -> AsyncIterator[WebhookSender]:
    """Yield a sender that may reach loopback."""
    sender = WebhookSender([ip_network("127.0.0.0/8")])
    yield sender
    await sender.close()


@contextlib.contextmanager
def served(receiver: Receiver) -> Iterator[Server]:
    """Serve a receiver in a thread."""
    with Server(receiver) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@contextlib.contextmanager
def answering(respond: Respond) -> Iterator[str]:
    """Serve a function from (method, headers, body) to (status, headers, body). Yield the URL."""

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, extra, answer = respond(self.command, headers, body)
            self.send_response(status)
            for name, value in {**extra, "content-length": str(len(answer))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST

    with LoopbackServer(Handler) as server:
        yield f"{server.url}/"


async def findings(sender: WebhookSender, target: Target, limits: Limits = DEFAULTS) -> dict[str, StoredFinding]:
    """Test a receiver and return its findings by name."""
    seen: list[str] = []
    found = await ReceiverRun(sender, target, limits).run(lambda finding: seen.append(finding.name))
    assert [finding.name for finding in found] == list(NAMES)
    assert sorted(seen) == sorted(NAMES)
    return {finding.name: finding for finding in found}


def having(found: Mapping[str, StoredFinding], outcome: str) -> set[str]:
    """Return the names of the checks with an outcome."""
    return {name for name, finding in found.items() if finding.outcome == outcome}


async def test_a_correct_receiver_passes_every_check(sender: WebhookSender) -> None:
    with served(Receiver(SECRET)) as server:
        found = await findings(sender, Target(server.url, SECRET, probe_url=f"{server.probe_url}?key=1"))
    assert having(found, "passed") == set(NAMES), found


@pytest.mark.parametrize("mistake", sorted(MISTAKES.keys() - {"answers_after_processing", "leaks_progress"}))
async def test_a_broken_receiver_fails_exactly_its_checks(sender: WebhookSender, mistake: str) -> None:
    kind = MISTAKES[mistake]
    with served(kind(SECRET)) as server:
        found = await findings(sender, Target(server.url, SECRET, probe_url=server.probe_url), Limits(probe=0.2))
    assert having(found, "failed") == set(kind.fails), found
    assert having(found, "advice") == set(getattr(kind, "advises", ()))


async def test_a_comparison_character_by_character_is_advised_against(
    sender: WebhookSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, only the comparison takes time, so a busy machine does not hide it."""
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(broken, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(runner, "time", SimpleNamespace(perf_counter=lambda: clock.now, monotonic=time.monotonic))
    with served(broken.LeaksProgress(SECRET)) as server:
        found = await findings(sender, Target(server.url, SECRET, probe_url=server.probe_url))
    assert (having(found, "failed"), having(found, "advice")) == (set(), {"refuses_wrong_key"}), found


async def test_a_late_receiver_fails_only_the_check_of_its_time(sender: WebhookSender) -> None:
    """The limit and its work are scaled down alike."""
    receiver = AnswersAfterProcessing(SECRET)
    receiver.processing_seconds = 0.6
    with served(receiver) as server:
        target = Target(server.url, SECRET, probe_url=server.probe_url)
        found = await findings(sender, target, Limits(advice=0.1, fail=0.5))
    assert having(found, "failed") == {"answers_in_time"}, found
    assert having(found, "passed") == set(NAMES) - {"answers_in_time"}, found


async def test_a_receiver_that_never_answers_fails_only_the_check_of_its_time() -> None:
    limits, gate = Limits(give_up=0.3), threading.Event()
    impatient = WebhookSender([ip_network("127.0.0.0/8")], timeout=limits.give_up)
    with answering(lambda *_: ((gate.wait(30) and 200) or 500, {}, b"")) as url:
        found = await findings(impatient, Target(url, SECRET), limits)
        gate.set()
    await impatient.close()
    assert having(found, "failed") == {"answers_in_time"}, found
    assert having(found, "skipped") == set(NAMES) - {"answers_in_time"}, found


async def test_a_test_that_takes_too_long_ends_and_says_so(sender: WebhookSender) -> None:
    gate, is_first = threading.Event(), [True]

    def respond(method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if is_first:
            is_first.pop()
        else:
            gate.wait(30)
        return 200, {}, b""

    with answering(respond) as url:
        found = await findings(sender, Target(url, SECRET), Limits(total=1.0))
        gate.set()
    assert having(found, "passed") == {"accepts_valid"}
    assert having(found, "skipped") == set(NAMES) - {"accepts_valid"}
    assert "limited to 1 s" in found["survives_burst"].observation


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook], ids=lambda kind: kind.__module__)
async def test_the_report_on_a_receiver_from_a_librarys_documentation_is_correct(sender: WebhookSender, library: Any) -> None:
    """Their examples catch WebhookVerificationError. A malformed signature raises ValueError, so it becomes a 500."""

    def respond(method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        try:
            library(SECRET).verify(body, dict(headers))
        except standardwebhooks.WebhookVerificationError:
            return 400, {}, b""
        except Exception:
            return 500, {}, b""  # a framework's answer to any other error
        return 204, {}, b""

    with answering(respond) as url:
        found = await findings(sender, Target(url, SECRET))
    assert having(found, "failed") == set()
    assert having(found, "advice") == {"refuses_malformed_signature"}
    assert having(found, "skipped") == EFFECTS
    assert "answered 500" in found["refuses_malformed_signature"].observation

    def corrected(method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        status, extra, answer = respond(method, headers, body)
        return 400 if status == 500 else status, extra, answer

    with answering(corrected) as url:
        found = await findings(sender, Target(url, SECRET))
    assert having(found, "passed") == set(NAMES) - EFFECTS


def _verifies(signing: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Verify a webhook in another dialect, as its documentation says."""
    now = int(time.time())
    if signing == "v1a":
        text = standard_webhooks.public_key(standard_webhooks.decode_private_key(PRIVATE_KEY))
        public = base64.b64decode(text.removeprefix(standard_webhooks.PUBLIC_KEY_PREFIX))
        return standard_webhooks.verify_v1a([public], headers, body, now) is None
    given = headers.get("stripe-signature" if signing == "stripe" else "x-hub-signature-256", "")
    if signing == "github":
        return given == _header("github", body, now)["X-Hub-Signature-256"] if given else False
    stamps = re.findall(r"t=([0-9]+)", given)
    if len(stamps) != 1 or abs(now - int(stamps[0])) > 300:
        return False
    expected = _header("stripe", body, int(stamps[0]))["Stripe-Signature"].partition("v1=")[2]
    return expected in re.findall(r"v1=([0-9a-f]*)(?:,|$)", given)


def _header(signing: str, body: bytes, now: int) -> dict[str, str]:
    return dialects.signature_headers(signing, ["a secret of my own"], "id", now, body)


@pytest.mark.parametrize("signing", ["v1a", "stripe", "github"])
async def test_receivers_of_other_dialects_can_be_tested(sender: WebhookSender, signing: str) -> None:
    secret = PRIVATE_KEY if signing == "v1a" else "a secret of my own"

    def respond(method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        return (200 if method == "POST" and _verifies(signing, headers, body) else 401), {}, b""

    with answering(respond) as url:
        found = await findings(sender, Target(url, secret, signing))
    without = UNTIMED | {"accepts_rotation"} if signing == "github" else set()
    assert having(found, "skipped") == EFFECTS | without
    assert having(found, "passed") == set(NAMES) - EFFECTS - without, found


async def test_a_receiver_written_for_stripe_gets_advice_for_what_stripes_package_does_not_check(sender: WebhookSender) -> None:
    secret = "whsec_of_stripe"

    def respond(method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        try:
            stripe.Webhook.construct_event(body, headers["stripe-signature"], secret)
        except (KeyError, ValueError, stripe.SignatureVerificationError):
            return 400, {}, b""
        return 200, {}, b""

    with answering(respond) as url:
        found = await findings(sender, Target(url, secret, "stripe"))
    assert having(found, "skipped") == EFFECTS
    assert having(found, "advice") == {"refuses_future_timestamp"}
    assert having(found, "failed") == set(), found


@pytest.fixture
def node_receiver() -> Iterator[tuple[str, str]]:
    """Yield the URLs of the receiver in Node and of its probe."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed, so its receiver is not tested")
    command = [node, str(ROOT / "examples/receivers/correct_node.js"), "--secret", SECRET, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, probe_url = re.findall(r"http://\S+", process.stdout.readline())
        yield url, probe_url
        process.kill()


async def test_the_node_receiver_passes_every_check(sender: WebhookSender, node_receiver: tuple[str, str]) -> None:
    url, probe_url = node_receiver
    found = await findings(sender, Target(url, SECRET, probe_url=probe_url))
    assert having(found, "passed") == set(NAMES), found


async def test_events_that_are_applied_in_the_background_are_waited_for(sender: WebhookSender) -> None:
    """A queue between the answer and the effect neither fails a correct receiver nor hides a missing deduplication."""
    for mistake, failed in ((Receiver, set()), (MISTAKES["no_dedup"], set(MISTAKES["no_dedup"].fails))):
        queued: list[dict[str, Any]] = []
        more = threading.Condition()

        class Queueing(mistake):  # type: ignore[misc, valid-type]  # one of two classes
            def act_on(self, event: dict[str, Any], queued: list[dict[str, Any]] = queued, more: Any = more) -> None:
                with more:
                    queued.append(event)
                    more.notify()

            def work(self, queued: list[dict[str, Any]] = queued, more: Any = more) -> None:
                while True:
                    with more:
                        more.wait_for(lambda: queued)
                        event = queued.pop(0)
                    time.sleep(0.002)
                    super().act_on(event)

        receiver = Queueing(SECRET)
        threading.Thread(target=receiver.work, daemon=True).start()
        with served(receiver) as server:
            found = await findings(sender, Target(server.url, SECRET, probe_url=server.probe_url))
        assert having(found, "failed") == failed, found


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((404, {}, b""), "answered 404"),
        ((200, {}, b"<html>"), "must be JSON"),
        ((200, {}, b'{"status": null, "applied": 0}'), "did not show its effect"),
    ],
)
async def test_a_probe_that_cannot_be_used_fails_the_checks_that_need_it(
    sender: WebhookSender, answer: tuple[int, dict[str, str], bytes], why: str
) -> None:
    with served(Receiver(SECRET)) as server, answering(lambda *_: answer) as probe_url:
        found = await findings(sender, Target(server.url, SECRET, probe_url=probe_url), Limits(probe=0.05))
    assert having(found, "failed") >= EFFECTS
    assert all(why in found[name].observation for name in EFFECTS)


async def test_events_of_a_burst_that_are_not_applied_are_advice_as_long_as_a_later_one_is_not_either(
    sender: WebhookSender,
) -> None:
    """They may only be late, so it is no failure."""

    class Stuck(Receiver):
        arrived, room = 0, 1000

        def act_on(self, event: dict[str, Any]) -> None:
            with self._lock:
                self.arrived += 1
                is_stuck = self.arrived > self.room
            if not is_stuck:
                super().act_on(event)

    counting, stuck = Stuck(SECRET), Stuck(SECRET)
    with served(counting) as server:
        await findings(sender, Target(server.url, SECRET, probe_url=server.probe_url))
    stuck.room = counting.arrived - 20  # the burst is last
    with served(stuck) as server:
        found = await findings(sender, Target(server.url, SECRET, probe_url=server.probe_url), Limits(probe=0.05))
    assert having(found, "advice") == {"survives_burst"}, found
    assert having(found, "failed") == set()
    assert "Check that none is lost" in found["survives_burst"].observation


async def test_a_refused_duplicate_fails_without_a_probe_too(sender: WebhookSender) -> None:
    seen: set[str] = set()
    receiver = Receiver(SECRET)

    def respond(method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        status = receiver.handle(method, headers, body)
        if status == 200 and headers["webhook-id"] in seen:
            return 409, {}, b""
        seen.add(headers.get("webhook-id", ""))
        return status, {}, b""

    with answering(respond) as url:
        found = await findings(sender, Target(url, SECRET))
    assert having(found, "failed") == {"handles_duplicate"}
    assert "answered 409" in found["handles_duplicate"].observation


async def test_a_receiver_that_shows_its_secret_does_not_show_it_in_the_report(sender: WebhookSender) -> None:
    text = f"wrong signature, expected key {SECRET} or {SECRET[6:]}".encode()
    with answering(lambda *_: (400, {"x-key": SECRET}, text)) as url:
        found = await findings(sender, Target(url, SECRET))
    report = msgspec.json.encode([shown(finding, "v1") for finding in found.values()]).decode()
    assert "expected key" in report
    assert SECRET[6:] not in report


def test_the_examples_can_be_started(tmp_path: Path) -> None:
    for words in (["correct_python"], ["broken", "no_dedup"]):
        command = [sys.executable, "-m", f"examples.receivers.{words[0]}", *words[1:], "--secret", SECRET, "--port", "0"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "/webhooks" in process.stdout.readline()
            process.kill()
