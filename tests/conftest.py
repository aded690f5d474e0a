"""One sandbox for the whole run, with two API processes and two workers; each test has a merchant of its own in it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from sandbox.runtime.open_files import raise_limit_of_open_files
from tests.harness.receiver import Receiver
from tests.harness.supervised import end
from tests.harness.waiting import until
from tests.harness.world import Stack, World

# Unconfigured, it draws tracebacks with all their variables, which takes half a minute for one that holds many.
structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
# No property here is about speed, and on a machine that stands still for a moment any example is slow.
settings.register_profile("psp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("psp")
_STACK = pytest.StashKey[tuple["subprocess.Popen[bytes]", tempfile.TemporaryDirectory[str]]]()
_READY = "PSP_TEST_STACK"
_SLOWEST_FIRST = ("test_contract.py", "test_crashes.py", "test_runtime.py", "test_bench.py", "test_faults.py", "test_clock.py")
"""Files that take longest. They are begun first, so that none is left to run alone at the end."""


def pytest_configure() -> None:
    """Allow as many sockets as the product's processes allow themselves: some tests hold both ends of all its calls."""
    raise_limit_of_open_files()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the sandbox once, in the process that leads the run; its workers are told where it is."""
    if hasattr(session.config, "workerinput") or session.config.option.collectonly:
        return
    folder = tempfile.TemporaryDirectory(prefix="psp-tests-")
    # All is plain HTTP here. Each client would spend 30 ms on reading the machine's certificate authorities.
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = folder.name
    ready = Path(folder.name) / "ready.json"
    arguments = ["up", "--ephemeral", "--port", "0", "--ipn-port", "0", "--api-processes", "2", "--workers", "2"]
    # The stores are always the embedded ones, whatever the environment offers.
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    os.environ["BULK_CREDIT_FAIL_USER_IDS"] = f"@{folder.name}/fail-list"
    log = (Path(folder.name) / "up.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.cli.main", *arguments, "--ready-file", str(ready)], stdout=log, stderr=log
    )
    log.close()
    session.config.stash[_STACK] = (process, folder)
    until(lambda: ready.exists() or process.poll() is not None, seconds=300)
    if not ready.exists():
        pytest.exit(f"the sandbox did not start:\n{(Path(folder.name) / 'up.log').read_text()}", returncode=1)
    os.environ[_READY] = ready.read_text()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the others stay in their order."""
    place = {name: number for number, name in enumerate(_SLOWEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the sandbox."""
    with contextlib.suppress(KeyError):
        process, folder = session.config.stash[_STACK]
        end(process)
        folder.cleanup()


@pytest.fixture(scope="session")
def stack() -> Stack:
    """The sandbox that runs: its URLs, keys and stores."""
    found: dict[str, Any] = json.loads(os.environ[_READY])
    return Stack(**found)


@pytest.fixture(scope="session")
def database_url(stack: Stack) -> str:
    """The running sandbox's database, as its owner."""
    return stack.database_url


@pytest.fixture
def world(stack: Stack) -> Iterator[World]:
    """A merchant of this test's own, with 1,000,000.00 to pay out."""
    with World.create(stack, opening_balance="1000000.00") as world:
        yield world


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook receiver on loopback that keeps what it gets."""
    with Receiver() as receiver:
        yield receiver
