"""One sandbox for the whole test run, with two API processes and two workers. Each test gets its own merchant.

It has an embedded PostgreSQL, unless PSP_TEST_DATABASE_URL names another database, which only this run may use. It can be
distributed: the URL is that of any node of the cluster.
"""

import contextlib
import gc
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling, Scheduling

from psp_sandbox.testing import Sandbox
from psp_sandbox.testing.process import Address, SandboxProcess
from sandbox.infrastructure.db import connector, pools
from sandbox.infrastructure.db.distributed import cluster_pools
from sandbox.server.runtime.open_files import raise_open_file_limit
from sandbox.unit_of_work import light_merchants
from tests.harness.console import ConsoleClient
from tests.harness.one_clock import Clocks
from tests.harness.own_sandbox import start_sandbox
from tests.harness.receiver import Receiver
from tests.harness.supervised import end
from tests.harness.work import pooled
from tests.harness.world import Stack, World

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.harness.browser import Browsing
    from tests.harness.citus import CitusCluster

# By default, structlog prints every local variable of a traceback. That takes half a minute if there are many.
structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
# No property measures speed, and any example is slow on a machine that stalls for a moment.
settings.register_profile("psp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("psp")
_STACK = pytest.StashKey[tuple["subprocess.Popen[bytes]", tempfile.TemporaryDirectory[str]]]()
_STACK_VARIABLE = "PSP_TEST_STACK"
_DATABASE_VARIABLE = "PSP_TEST_DATABASE_URL"
_SLOWEST_FILES = (
    "test_broken_shops.py",
    "test_listen_interrupted.py",
    "test_one_clock_languages.py",
    "test_stateful_merchants.py",
    "test_contract.py",
    "test_console_pages.py",
    "test_docs_code.py",
    "test_node_package.py",
    "test_language_files.py",
    "test_package.py",
    "test_application_replay.py",
    "test_console_drawings.py",
    "test_bench.py",
    "test_console_merchants.py",
    "test_crashes.py",
    "test_aggregator_api.py",
    "test_docs_pages.py",
    "test_node_explored.py",
    "test_citus_tour.py",
    "test_one_clock.py",
    "test_console_trace.py",
    "test_shop.py",
    "test_console_payouts.py",
    "test_explore.py",
    "test_node_visits.py",
    "test_receiver_checks.py",
    "test_runtime.py",
    "test_world_to_test.py",
    "test_world_replay.py",
    "test_certify.py",
    "test_world_bundle_fuzz.py",
)
"""They run first, so that none of them runs alone at the end."""


def pytest_configure() -> None:
    """Raise the limit of open files, as the product's processes do: some tests hold both ends of every connection.

    Raises UsageError if a clone was not installed, or `git clean` removed the generated part of the client.
    """
    if not (Path(__file__).parent.parent / "psp_sandbox/client/_generated").is_dir():
        raise pytest.UsageError("The client is not generated; run: .venv/bin/python openapi/generate_client.py")
    raise_open_file_limit()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the sandbox once, in the main pytest process. The pytest workers find it through an environment variable."""
    if hasattr(session.config, "workerinput") or session.config.option.collectonly:
        return
    folder = tempfile.TemporaryDirectory(prefix="psp-tests-")
    # The tests use plain HTTP. Without this, each client spends 30 ms on loading the system's CA certificates.
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = folder.name
    # Use the embedded stores, even if the environment names others for the sandbox.
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    os.environ["BULK_CREDIT_FAIL_USER_IDS"] = f"@{folder.name}/fail-list"
    os.environ["SANDBOX_DIALECTS"] = str(Path(__file__).parent.parent / "examples" / "dialects")
    env = dict(os.environ)
    if _DATABASE_VARIABLE in os.environ:
        env |= {"DATABASE_URL": os.environ[_DATABASE_VARIABLE], "SANDBOX_WEBHOOK_ALLOW": "loopback"}
    try:
        process, stack = start_sandbox(Path(folder.name), "--ephemeral", "--api-processes", "2", "--workers", "2", env=env)
    except AssertionError as error:
        pytest.exit(str(error), returncode=1)
    session.config.stash[_STACK] = (process, folder)
    os.environ[_STACK_VARIABLE] = json.dumps(asdict(stack))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of pytest processes for `-n auto`: two for each core, because tests wait half of their time."""
    return min(2 * (os.cpu_count() or 1), 8)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep what is collected out of garbage collections: there is nothing to find in it, and much to search."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


class _Scheduling(LoadFileScheduling):
    """Run the tests of one file in one process, and all that use the Citus cluster in the same one, since they share it."""

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        return "citus" if "test_citus_" in scope else scope


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Distribute the tests over the pytest processes."""
    return _Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first and keep the order of the others."""
    rank = {name: number for number, name in enumerate(_SLOWEST_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the sandbox."""
    with contextlib.suppress(KeyError):
        process, folder = session.config.stash[_STACK]
        end(process)
        folder.cleanup()


@pytest.fixture(scope="session")
def stack() -> Stack:
    """Return the running sandbox: its URLs, keys and stores."""
    found: dict[str, Any] = json.loads(os.environ[_STACK_VARIABLE])
    return Stack(**found)


@pytest.fixture(scope="session")
def database_url(stack: Stack) -> str:
    """Return the URL of the sandbox's database, with the role that owns it."""
    return stack.database_url


@pytest.fixture(scope="session", autouse=True)
def patient_connections() -> Iterator[None]:
    """Let this process wait longer for PostgreSQL than the product does: a busy machine is not an outage."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (connector, pools, cluster_pools):
            patch.setattr(module, "CONNECT_SECONDS", 60.0)
        yield


@pytest.fixture
def world(stack: Stack) -> Iterator[World]:
    """Yield a merchant that only this test uses, with 1,000,000.00 available."""
    with World.create(stack, opening_balance="1000000.00") as world:
        yield world


@pytest.fixture
def member(world: World) -> Iterator[httpx.Client]:
    """Yield a client with a member key of the test's merchant."""
    key = world.post("/sandbox/v1/keys", {"role": "member"}).json()["api_key"]
    with httpx.Client(base_url=world.stack.api_url, headers={"X-API-KEY": key}, timeout=60) as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Yield a webhook receiver on loopback that records every request."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def no_light_merchant_was_found() -> None:
    """All queues of a process share when one was found, so an earlier test would change how they share work."""
    light_merchants._last_light[0] = 0.0


@pytest.fixture(scope="session")
def citus() -> Iterator["CitusCluster"]:
    """Yield a running Citus cluster; skip the test if there is none. See harness/citus.py. Only for files test_citus_*.py."""
    from tests.harness.citus import running_cluster

    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """Yield a Chromium for the tests of one file; skip them if there is none."""
    # Imported here, because loading it takes time and only the console's tests need it.
    from tests.harness import browser

    with browser.chromium() as found:
        yield found


@pytest.fixture
async def pool(stack: Stack) -> AsyncIterator[None]:
    """Open a pool of connections to the sandbox's database in this process."""
    async with pooled(stack.database_url, 4):
        yield


@pytest.fixture
def console(world: World) -> Iterator[ConsoleClient]:
    """Yield a console session of the world's admin key."""
    with ConsoleClient(world.stack.api_url) as client:
        assert client.sign_in(world.api_key).url.path == world.console
        yield client


@pytest.fixture
def browsing(chromium: "Browser", stack: Stack) -> Iterator["Browsing"]:
    """Yield a way to open the console's pages, which fails the test if a page does what it must not. See harness/browser.py."""
    from tests.harness.browser import Browsing

    found = Browsing(chromium, stack.api_url)
    yield found
    found.close()


@pytest.fixture(scope="module")
def psp_sandbox(stack: Stack) -> Iterator[Sandbox]:
    """The plugin uses the sandbox of this test run, as with --psp-url."""
    sandbox = Sandbox(Address(stack.api_url, stack.admin_key), is_ours=False)
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Address]:
    """A sandbox with one API process: with several, a fault needs a moment until all know it."""
    process = SandboxProcess()
    yield process.start()
    process.stop()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Yield a port that stays reserved and that no program listens on."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.fixture
def clocks(tmp_path: Path) -> Iterator[Clocks]:
    """A clock file, and a library that lets processes follow it. They end with the test."""
    with contextlib.ExitStack() as closing:
        yield Clocks(tmp_path, closing)
