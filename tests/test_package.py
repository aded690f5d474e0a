"""The built wheel works in an empty environment, next to a project whose packages have the names of the sandbox's own."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from tests.harness.supervised import environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
OWN_PACKAGES = ("sandbox", "worker", "ipn", "seeds")
APPLICATION = "psp_sandbox/_application"
GUIDE = "sandbox/server/docs/guide/"
GENERATED = ("__pycache__", "guide", "_generated", "models", "inputs.py", "literals.py", "problems.py")
"""What the copy of the code leaves out: the build must write it."""
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NO_REGISTRY = "connection broken by"
"""What pip prints when a registry does not respond."""

CONFLICTING = ("redis>=6", "cryptography<46", "structlog<26", "rich<14", "litestar<2.20")
"""Requirements that the sandbox itself cannot be installed beside."""
OF_HTTPX = {"anyio", "certifi", "h11", "httpcore", "httpx", "idna", "typing_extensions"}
OF_EXTRAS = {"mcp", "opentelemetry", "pytest", "testcontainers", "time_machine"}
"""Modules of optional requirements, and pytest, which a project has itself."""
IMPORT_ALL = """
import importlib, json, sys
from psp_sandbox import application
application.put_first()
missing = set()
for name in json.load(sys.stdin):
    try:
        importlib.import_module(name)
    except ImportError as error:
        missing.add((error.__cause__ or error).name.partition(".")[0])
print(json.dumps(sorted(missing)))
"""

PAY = """
import importlib, json, os, urllib.request

raised = []
for name in ("sandbox", "worker", "ipn", "seeds", "tests"):
    try:
        importlib.import_module(name)
    except RuntimeError as error:
        raised.append(str(error))

def call(path, data=None, **headers):
    headers = {"X-API-KEY": os.environ["PSP_API_KEY"], "Content-Type": "application/json", **headers}
    with urllib.request.urlopen(urllib.request.Request(os.environ["PSP_URL"] + path, data, headers)) as response:
        return json.load(response)

destination = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
body = json.dumps({"merchant_reference": "p", "amount": "10.00", **destination}).encode()
payout = call("/api/v1/payouts", body, **{"X-IDEMPOTENCY-KEY": "p"})
paid = call(f"/api/v1/payouts/{payout['id']}?wait_for=SUCCESS")
print(json.dumps({"raised": raised, "environment": dict(os.environ), "status": paid["status"]}))
"""
EXEC_EVERYTHING = """
import psp_sandbox.application, psp_sandbox.entry
psp_sandbox.application.put_first()
from sandbox.server.runtime import child, supervisor
child.CAN_FORK = supervisor.CAN_FORK = False
psp_sandbox.entry.main()
"""

PYTEST_PINS = r"(?m)^(?:iniconfig|packaging|pluggy|pygments|pytest)==.*\n(?: +--hash=.*\n)+"
FIVE_LINES = """
def test_a_returned_payout_returns_its_money(psp):
    payout = psp.pays("returned", amount="250.00")
    psp.advance("60s")
    assert psp.webhooks(payout).types[-2:] == ["payout.succeeded", "payout.returned"]
    assert str(psp.balance.available) == "1000000.00"
"""


def run(command: Sequence[str | Path], cwd: Path, given: str | None = None, **variables: str) -> str:
    """Run a command without the settings of this test run, and return its output. Raises AssertionError if it fails."""
    completed = subprocess.run(
        command, cwd=cwd, env=clean_environment() | variables, input=given, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, f"{command}: {completed.returncode}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


def clean_environment() -> dict[str, str]:
    """Return the environment without what this test run sets, and without Python's own variables."""
    return {name: value for name, value in environment().items() if name != "SSL_CERT_DIR" and not name.startswith("PYTHON")}


def create_environment(folder: Path) -> Path:
    """Create an empty virtual environment, and return its Python."""
    # Packages are installed with the pip of this environment: to install another one takes longer than all the rest.
    run([sys.executable, "-m", "venv", "--without-pip", folder], folder.parent)
    return folder / "bin" / "python"


def install(python: Path, *arguments: str | Path) -> None:
    """Install packages. Skip the test if no registry responds."""
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", *arguments]
    completed = subprocess.run(command, cwd="/", env=clean_environment(), capture_output=True, text=True, check=False)
    if completed.returncode != 0 and NO_REGISTRY in completed.stderr:
        pytest.skip("No package registry responds, so the wheel cannot be installed in an empty environment.")
    assert completed.returncode == 0, completed.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as the Dockerfile does, from the files that it copies."""
    folder = tmp_path_factory.mktemp("build")
    python = create_environment(folder / "venv")
    install(python, "--no-deps", "--require-hashes", "-r", ROOT / "requirements-build.txt")
    recipe = (ROOT / "Dockerfile").read_text().partition("WORKDIR /source\n")[2].partition("pip wheel")[0]
    for source in re.findall(r"(?m)^COPY (.+) \S+$", recipe):
        for name in source.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns(*GENERATED))
            else:
                (folder / "source").mkdir(exist_ok=True)
                shutil.copy(ROOT / name, folder / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    run([sys.executable, "-m", "pip", "--python", python, "wheel", *options, folder / "source"], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """Return the names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with nothing but the wheel and its pinned requirements."""
    python = create_environment(tmp_path_factory.mktemp("installed") / "venv")
    install(python, "--no-deps", "--require-hashes", "-r", ROOT / "requirements.txt")
    install(python, "--no-deps", "--no-index", wheel)
    return python


@pytest.fixture(scope="module")
def thin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment in which somebody has installed psp-sandbox without the extra server."""
    python = create_environment(tmp_path_factory.mktemp("thin") / "venv")
    install(python, wheel)
    install_pytest(python)
    return python


def install_pytest(python: Path) -> None:
    """Install pytest as the lock file has it."""
    pins = python.parent.parent / "pytest.txt"
    pins.write_text("".join(re.findall(PYTEST_PINS, (ROOT / "requirements-dev.txt").read_text())))
    install(python, "--require-hashes", "-r", pins)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with packages of the same names as the sandbox's own. Each fails when it is imported."""
    for name in (*OWN_PACKAGES, "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('the {name} of the project')\n")
    return tmp_path


def files_below(folder: Path) -> set[str]:
    """Return the files in a folder of the repository, relative to its parent, without caches and generated files."""
    paths = (path.relative_to(folder.parent).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path for path in paths if "__pycache__" not in path and not path.startswith(GUIDE)}


def test_the_wheel_has_one_top_level_package_with_all_files_but_tests_and_benchmarks(names: set[str]) -> None:
    assert {name.partition("/")[0] for name in names} == {"psp_sandbox", f"psp_sandbox-{VERSION}.dist-info"}
    own = {path for name in OWN_PACKAGES for path in files_below(ROOT / name) if not path.startswith("sandbox/cli/benches/")}
    expected = files_below(ROOT / "psp_sandbox") | {f"{APPLICATION}/{path}" for path in own}
    guide = {name for name in names if name.startswith(f"{APPLICATION}/{GUIDE}")}
    assert f"{APPLICATION}/{GUIDE}index.html" in guide
    assert {name for name in names if name.startswith("psp_sandbox/")} - guide == expected
    assert f"psp_sandbox-{VERSION}.dist-info/licenses/LICENSE" in names


def test_every_module_can_be_imported_without_the_other_extras(python: Path, names: set[str], project: Path) -> None:
    run([sys.executable, "-m", "pip", "--python", python, "check"], project)
    modules = modules_of(names)
    assert "sandbox.server.serve" in modules
    missing = set(json.loads(run([python, "-c", IMPORT_ALL], project, json.dumps(modules), PYTHONPATH=".")))
    assert missing <= OF_EXTRAS


def modules_of(names: set[str]) -> list[str]:
    """Return the modules of the wheel, by the names with which they are imported."""
    paths = [
        Path(name.removeprefix(f"{APPLICATION}/")).with_suffix("")
        for name in names
        if name.endswith(".py") and GUIDE not in name
    ]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def test_psp_runs_in_the_project(python: Path, project: Path) -> None:
    psp = python.parent / "psp"
    for command in ([psp], [python, "-m", "psp_sandbox"], [python, "-P", "-m", "psp_sandbox"]):
        assert run([*command, "--version"], project, PYTHONPATH=".") == f"psp {VERSION}\n"
    refused = subprocess.run([psp, "bench", "reads"], cwd=project, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "the installed package does not contain the benchmarks" in refused.stderr


@pytest.mark.parametrize("program", [["-m", "psp_sandbox"], ["-c", EXEC_EVERYTHING]], ids=["as usual", "without forks"])
def test_the_sandbox_and_the_project_each_import_their_own_packages(python: Path, project: Path, program: list[str]) -> None:
    (project / "pay.py").write_text(PAY)
    variables = {"PYTHONPATH": ".", "PICCOLO_CONF": "tests.piccolo_conf"}
    found = json.loads(run([python, *program, "run", "--ephemeral", "--", python, "pay.py"], project, **variables))
    assert found["status"] == "SUCCESS"
    assert found["raised"] == [f"the {name} of the project" for name in (*OWN_PACKAGES, "tests")]
    added = {"PSP_URL", "PSP_API_KEY", "PSP_ADMIN_KEY", "PSP_IPN_URL", "PSP_IPN_SECRET"}
    assert without(found["environment"], added | {"LC_CTYPE"}) == without(clean_environment() | variables, {"LC_CTYPE"})


def without(variables: Mapping[str, str], names: set[str]) -> dict[str, str]:
    """Return the variables except these. (Python itself may set LC_CTYPE.)"""
    return {name: value for name, value in variables.items() if name not in names}


def test_the_commands_of_the_containers_run_the_sandbox_s_modules(python: Path, project: Path) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    text = json.dumps([service.get("command") for service in services]).replace('", "', " ")
    text += (ROOT / "Dockerfile").read_text().rpartition("CMD ")[2].replace('", "', " ")
    modules = re.findall(r"python -m psp_sandbox.application ([\w.]+)", text)
    assert sorted(modules) == ["ipn", "sandbox.infrastructure.db.migrate", "sandbox.server.serve", "seeds", "worker"]
    assert text.count("python") == len(modules)
    for module in modules:
        completed = subprocess.run(
            [python, "-m", "psp_sandbox.application", module],
            cwd=project, env=clean_environment() | {"PYTHONPATH": "."}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert completed.returncode == 1
        assert re.search(r"^(settings|migrate|seeds): .*DATABASE_URL", completed.stderr), completed.stderr


def test_a_test_of_five_lines_passes(python: Path, project: Path) -> None:
    install_pytest(python)
    (project / "test_payouts.py").write_text(FIVE_LINES)
    assert "1 passed" in run([python.parent / "pytest", "-p", "no:cacheprovider"], project, PYTHONPATH=".")


def test_without_the_server_there_is_httpx_and_every_module_of_the_client_and_plugin(
    thin: Path, names: set[str], project: Path
) -> None:
    listed = json.loads(run([sys.executable, "-m", "pip", "--python", thin, "list", "--format", "json"], project))
    found = {one["name"].replace("-", "_").lower() for one in listed}
    assert found - OF_HTTPX == {"psp_sandbox", "iniconfig", "packaging", "pluggy", "pygments", "pytest"}
    modules = [name for name in modules_of(names) if name.startswith("psp_sandbox")]
    assert "psp_sandbox.testing.evidence.render" in modules
    missing = set(json.loads(run([thin, "-c", IMPORT_ALL], project, json.dumps(modules), PYTHONPATH=".")))
    assert missing <= OF_EXTRAS


def test_without_the_server_psp_says_in_one_line_how_to_install_it(thin: Path, project: Path) -> None:
    for command in ([thin.parent / "psp", "--version"], [thin, "-m", "psp_sandbox", "up"]):
        refused = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert re.fullmatch(r"psp: .* Run: pip install 'psp-sandbox\[server\]'\n", refused.stderr)


def test_the_plugin_without_the_server_uses_a_sandbox_that_runs_elsewhere(thin: Path, python: Path, project: Path) -> None:
    (project / "test_payouts.py").write_text(FIVE_LINES)
    tested = [thin.parent / "pytest", "-p", "no:cacheprovider", "--psp-report-file=report.md"]
    assert "1 passed" in run([python.parent / "psp", "run", "--ephemeral", "--", *tested], project, PYTHONPATH=".")
    assert "RETURNED" in (project / "report.md").read_text()


WITH_SERVER = "psp-sandbox[server]"
WAYS = {
    "psp": 'exec "$PSP" "$@"',
    # Unlike pipx, uvx stays between the plugin and the sandbox.
    "uvx": f'test "$1 $2 $3" = "--from {WITH_SERVER}=={VERSION} psp"; shift 3; trap \'kill $!\' TERM; "$PSP" "$@" & wait; wait',
    "pipx": f'test "$1 $2 $3 $4" = "run --spec {WITH_SERVER}=={VERSION} psp"; shift 4; exec "$PSP" "$@"',
}


@pytest.mark.parametrize("way", WAYS)
def test_the_plugin_without_the_server_starts_a_sandbox_from_an_environment_of_its_own(
    thin: Path, python: Path, project: Path, way: str
) -> None:
    (project / "test_payouts.py").write_text(FIVE_LINES)
    programs = project / "programs"
    programs.mkdir()
    (programs / way).write_text(f"#!/bin/sh\n{WAYS[way]}\n")
    (programs / way).chmod(0o755)
    variables = {"PATH": f"{thin.parent}:{programs}:/usr/bin:/bin", "PSP": str(python.parent / "psp"), "PYTHONPATH": "."}
    assert "1 passed" in run([thin.parent / "pytest", "-p", "no:cacheprovider"], project, **variables)


def test_the_plugin_without_any_sandbox_says_how_to_get_one(thin: Path, project: Path) -> None:
    (project / "test_payouts.py").write_text(FIVE_LINES)
    command = [thin.parent / "pytest", "-p", "no:cacheprovider"]
    env = clean_environment() | {"PATH": f"{thin.parent}:/bin", "PYTHONPATH": "."}
    tested = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert tested.returncode == pytest.ExitCode.TESTS_FAILED
    assert "pip install 'psp-sandbox[server]'" in tested.stdout
    assert "set PSP_URL and PSP_ADMIN_KEY" in tested.stdout
    page = subprocess.run(
        [*command, "--psp-report-file=page.html"], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert page.returncode == pytest.ExitCode.USAGE_ERROR
    assert "pip install 'psp-sandbox[report]'" in page.stderr


def test_the_package_can_be_installed_beside_what_the_server_conflicts_with(wheel: Path, tmp_path: Path) -> None:
    install(create_environment(tmp_path / "venv"), wheel, *CONFLICTING)
