"""The pytest plugin: fixtures for tests against a sandbox.

The sandbox starts when the first test needs it, once per test session, even with pytest-xdist. Each test gets a merchant of its
own. Nothing but the standard library and pytest is imported until a test uses a fixture.
"""

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from psp_sandbox.testing.coverage_report import CoverageReport
    from psp_sandbox.testing.explore.plugin import Explorer
    from psp_sandbox.testing.live_app import StartApp
    from psp_sandbox.testing.live_process import StartProcess
    from psp_sandbox.testing.process import Address
    from psp_sandbox.testing.sandbox import Sandbox
    from psp_sandbox.testing.share import Share
    from psp_sandbox.testing.world import World

_MARK: Final = (
    "psp(balance='1000000.00', seed=None, frozen=True, name=None, allow_failed_deliveries=False, allow_unhit_faults=False): "
    "how the test's merchant is made, and what its teardown accepts."
)
_SHARE: "Final[pytest.StashKey[Share]]" = pytest.StashKey()
_WORLD: "Final[pytest.StashKey[World]]" = pytest.StashKey()
_PASSED: Final = pytest.StashKey[bool]()
_EVIDENCE: "Final[pytest.StashKey[list[tuple[str, str]]]]" = pytest.StashKey()
_WORKER_INPUT: Final = "psp_share"
_REPORT: Final = "psp_report"
_FAILURE_LINES: Final = 20
_EXPLORE: Final = "psp_explore"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the plugin."""
    group = parser.getgroup("psp", "PSP Sandbox")
    group.addoption("--psp-url", metavar="URL", help="use the sandbox that runs at this URL instead of starting one (PSP_URL)")
    group.addoption("--psp-admin-key", metavar="KEY", help="the operator's key of that sandbox (PSP_ADMIN_KEY)")
    group.addoption(
        "--psp-webhook-host",
        metavar="HOST",
        help="the address or name by which that sandbox reaches this machine, if it runs in a container (PSP_WEBHOOK_HOST)",
    )
    group.addoption(
        "--psp-artifacts",
        metavar="DIR",
        default=".psp-failures",
        help="where the worlds of failed tests are saved (%(default)s)",
    )
    group.addoption(
        "--psp-report",
        action="store_true",
        help="show which states, failure codes, problem codes, faults and retries the tests exercised (also in --junitxml)",
    )
    group.addoption(
        "--psp-report-file",
        metavar="FILE",
        help="write the report: a page for FILE.html, else Markdown; of --psp-explore also FILE.json, or FILE.xml as JUnit",
    )
    group.addoption(
        "--psp-report-min",
        type=float,
        metavar="PERCENT",
        help="fail if less than this percentage was exercised",
    )
    group.addoption(
        "--psp-explore",
        action="store_true",
        help="run the passing tests again, once for each way in which the world can misbehave, and compare both sides' books",
    )
    group.addoption("--psp-explore-list", action="store_true", help="show the points that explore would try")
    group.addoption("--psp-explore-depth", type=int, choices=(1, 2), default=1, help="2: try pairs of points too (%(default)s)")
    group.addoption("--psp-explore-budget", metavar="TIME", help='stop after this time, such as "10m"')
    group.addoption("--psp-explore-seed", type=int, default=0, metavar="N", help="draws the pairs (%(default)s)")
    group.addoption("--psp-explore-resume", action="store_true", help="continue the exploration that was stopped")
    group.addoption("--psp-point", metavar="POINT", help='try one point only, such as "POST /payouts#2:answer_lost"')
    group.addoption("--psp-books", metavar="CMD", help="a command that prints the application's books, as JSON lines or CSV")
    group.addoption("--psp-books-url", metavar="URL", help="a URL that responds with the application's books")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the report if it is wanted."""
    config.addinivalue_line("markers", _MARK)
    report_file = config.getoption("--psp-report-file")
    if report_file:
        from psp_sandbox.installed import why_no_report

        reason = why_no_report(report_file)
        if reason is not None:  # fail before the tests run, not after a ten-minute exploration
            raise pytest.UsageError(f"--psp-report-file {report_file}: {reason}")
    if config.getoption("--psp-explore") or config.getoption("--psp-explore-list") or config.getoption("--psp-point"):
        from psp_sandbox.testing.explore.plugin import Explorer

        config.pluginmanager.register(Explorer(config), _EXPLORE)
    elif any(config.getoption(f"--psp-report{part}") not in (None, False) for part in ("", "-file", "-min")):
        from psp_sandbox.testing.coverage_report import CoverageReport

        config.pluginmanager.register(CoverageReport(config), _REPORT)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a pytest-xdist worker where to ask for the sandbox. This runs in the main process."""
    config: pytest.Config = node.config
    if _url(config):
        return
    if _SHARE not in config.stash:
        from psp_sandbox.testing.process import SandboxProcess
        from psp_sandbox.testing.share import Share

        process = SandboxProcess()
        share = config.stash[_SHARE] = Share(process.start)
        config.add_cleanup(process.stop)
        config.add_cleanup(share.close)
    node.workerinput[_WORKER_INPUT] = config.stash[_SHARE].path


@pytest.fixture(scope="session")
def psp_sandbox(pytestconfig: pytest.Config) -> Iterator["Sandbox"]:
    """The sandbox of this test session: that of --psp-url or PSP_URL, or one that starts now and ends with the session."""
    from psp_sandbox.testing.process import StartError
    from psp_sandbox.testing.receiver import LOOPBACK
    from psp_sandbox.testing.sandbox import Sandbox

    url = _url(pytestconfig)
    if url:
        host = pytestconfig.getoption("--psp-webhook-host") or os.environ.get("PSP_WEBHOOK_HOST") or LOOPBACK
        sandbox = Sandbox(_given(pytestconfig, url), is_ours=False, webhook_host=host)
    else:
        try:
            sandbox = Sandbox(_start(pytestconfig), is_ours=True)
        except StartError as error:
            raise _failure(error) from None
    yield sandbox
    sandbox.close()


def _failure(error: Exception) -> BaseException:
    """Return an error that the report shows without a traceback, which would show the plugin's own code."""
    return pytest.fail.Exception(str(error), pytrace=False)


def _url(config: pytest.Config) -> str | None:
    return config.getoption("--psp-url") or os.environ.get("PSP_URL")


def _given(config: pytest.Config, url: str) -> "Address":
    from psp_sandbox.testing.process import Address

    if not url.startswith(("http://", "https://")):
        pytest.fail(f"--psp-url or PSP_URL must be a URL such as http://127.0.0.1:8000, not {url!r}", pytrace=False)
    return Address(url, config.getoption("--psp-admin-key"))


def _start(config: pytest.Config) -> "Address":
    path = getattr(config, "workerinput", {}).get(_WORKER_INPUT)
    if path is not None:
        from psp_sandbox.testing.share import ask

        return ask(path)
    from psp_sandbox.testing.process import SandboxProcess

    process = SandboxProcess()
    config.add_cleanup(process.stop)
    return process.start()


@pytest.fixture(scope="session")
def psp_sandbox_url(psp_sandbox: "Sandbox") -> str:
    """The URL of the sandbox's API."""
    return psp_sandbox.url


@pytest.fixture
def psp(request: pytest.FixtureRequest, psp_sandbox: "Sandbox") -> Iterator["World"]:
    """The test's own merchant. When the test ends, its ledger is audited, and failed deliveries and unused faults fail it."""
    from psp_sandbox.client import PspError
    from psp_sandbox.testing.options import UsageError, read_marks
    from psp_sandbox.testing.world import World

    marks = [(mark.args, mark.kwargs) for mark in reversed(list(request.node.iter_markers("psp")))]
    try:
        world = World(psp_sandbox, read_marks(marks, request.node.nodeid))
    except (UsageError, PspError) as error:
        raise _failure(error) from None
    item: pytest.Item = request.node
    item.stash[_WORLD] = world
    item.stash[_PASSED] = False
    item.stash[_EVIDENCE] = []
    explorer: Explorer | None = request.config.pluginmanager.get_plugin(_EXPLORE)
    try:
        if explorer is not None:
            explorer.begin(world)
        yield world
        # An interrupted test has not done what the checks are about. Explore has checked the world itself.
        if item.stash[_PASSED] and explorer is None:
            _check(item, world)
    finally:
        del item.stash[_WORLD]
        report: CoverageReport | None = request.config.pluginmanager.get_plugin(_REPORT)
        if report is not None:
            report.observe(world)
        world.close()


def _check(item: pytest.Item, world: "World") -> None:
    from psp_sandbox.client import PspError
    from psp_sandbox.testing.checks import failed_checks

    try:
        failed = failed_checks(world)
    except (PspError, AssertionError) as error:
        failed = [f"The checks at the end of the test could not be made: {error}"]
    if failed:
        _collect_evidence(item, world, "\n".join(failed))
        pytest.fail("\n".join(failed), pytrace=False)


def _collect_evidence(item: pytest.Item, world: "World", failure: str) -> None:
    """Read what the report of a failure shows, and save the world."""
    from psp_sandbox.testing.report import FailedTest, evidence

    # The test may have changed the current directory.
    folder = item.config.invocation_params.dir / item.config.getoption("--psp-artifacts")
    item.stash[_EVIDENCE] = evidence(world, folder, FailedTest(item.nodeid, failure, _fixtures_of(item)))


def _fixtures_of(item: pytest.Item) -> list[str]:
    """Return the fixtures that a test function asks for by name, without the parameters of `parametrize`."""
    info = getattr(item, "_fixtureinfo", None)  # a doctest has none
    return [name for name in info.argnames if item.session._fixturemanager.getfixturedefs(name, item)] if info else []


def _failure_of(report: pytest.TestReport) -> str:
    """Return what the report says of the assertion: its line, and pytest's explanation."""
    return "\n".join([line for line in report.longreprtext.splitlines() if line.startswith((">", "E"))][:_FAILURE_LINES])


@pytest.fixture
def live_app(psp: "World") -> "StartApp":
    """Start the application under test: `live_app(create_app)`. See `World.live_app`."""
    return psp.live_app


@pytest.fixture
def live_process(psp: "World") -> "StartProcess":
    """Start the application under test as a process: `live_process(["node", "app.js"])`. See `World.live_process`."""
    return psp.live_process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the sandbox knows to the report of a failed test. This runs before the fixtures are torn down."""
    report = yield
    world = item.stash.get(_WORLD, None)
    if world is not None:  # so this is not the report of the teardown, whose checks have collected the evidence
        item.stash[_PASSED] = call.when == "call" and call.excinfo is None
        if report.failed and not item.config.pluginmanager.has_plugin(_EXPLORE):
            _collect_evidence(item, world, _failure_of(report))
        if call.when == "setup":
            world.recording.starts.clear()  # fixtures start their applications again
    if report.failed:
        evidence = item.stash.setdefault(_EVIDENCE, [])
        report.sections += evidence
        item.stash[_EVIDENCE] = []
    return report
