"""`psp certify` passes correct receivers and finds exactly the mistake of each broken one."""

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from ipaddress import ip_network

import pytest
import pytest_asyncio

from examples.receivers.broken import MISTAKES
from examples.receivers.correct_python import Receiver, Server
from sandbox.domain.receiver_checks import NAMES, Limits
from sandbox.domain.webhook_signing import new_secret
from sandbox.receiver_tests.results import StoredFinding
from sandbox.receiver_tests.runner import ReceiverRun, Target
from sandbox.webhooks.sender import WebhookSender

SECRET = new_secret(bytes(range(32)))
EFFECTS = {"handles_duplicate", "handles_out_of_order"}


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


async def outcomes(sender: WebhookSender, target: Target, limits: Limits = Limits()) -> dict[str, StoredFinding]:
    """Test a receiver and return its findings by name."""
    seen: list[str] = []
    findings = await ReceiverRun(sender, target, limits).run(lambda finding: seen.append(finding.name))
    assert [finding.name for finding in findings] == list(NAMES)
    assert sorted(seen) == sorted(NAMES)
    return {finding.name: finding for finding in findings}


def having(findings: Mapping[str, StoredFinding], outcome: str) -> set[str]:
    """Return the names of the checks with an outcome."""
    return {name for name, finding in findings.items() if finding.outcome == outcome}


async def test_a_correct_receiver_passes_every_check(sender: WebhookSender) -> None:
    with served(Receiver(SECRET)) as server:
        found = await outcomes(sender, Target(server.url, SECRET, probe_url=server.probe_url))
    assert having(found, "passed") == set(NAMES), found


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name != "answers_after_processing"])
async def test_a_broken_receiver_fails_exactly_its_checks(sender: WebhookSender, mistake: str) -> None:
    kind = MISTAKES[mistake]
    with served(kind(SECRET)) as server:
        found = await outcomes(sender, Target(server.url, SECRET, probe_url=server.probe_url))
    assert having(found, "failed") == set(kind.fails), found
    assert having(found, "advice") == ({"refuses_wrong_key"} if mistake == "leaks_progress" else set())
