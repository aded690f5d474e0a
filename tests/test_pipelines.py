"""The GitHub Action, the workflow examples and the image for tests, as far as they run without GitHub and Docker."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml
from typer.core import TyperGroup

from sandbox.cli.main import create_app
from tests.harness.supervised import environment

ROOT = Path(__file__).parent.parent
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
LOGS_ACTION: dict[str, Any] = yaml.safe_load((ROOT / ".github/actions/logs/action.yml").read_text())
EXAMPLES = sorted((ROOT / "examples/ci").iterdir())
PAGE = ROOT / "docs/ci.md"
# What `python -m venv` would create, but with a pip that only records what it installs, and with this repository's psp.
PYTHON = f"""#!/bin/sh
[ "$1 $2" = "-m venv" ] && mkdir -p "$3/bin" && cd "$3/bin" || exit 9
cat > python <<'END'
#!/bin/sh
[ "$1 $2" = "-m pip" ] && shift 2 && echo "$@" >> "$RUNNER_TEMP/installed" && exit
exec {sys.executable} "$@"
END
cp "$RUNNER_TEMP/psp" psp
chmod +x python psp
"""


class Job:
    """A job of GitHub Actions, which runs the steps of actions one after the other, as the runner would."""

    def __init__(self, temp: Path) -> None:
        self.temp = temp
        self.variables: dict[str, str] = {}
        self.path: list[str] = []
        self.used: list[str] = []
        self.printed = ""
        self.python = self._script("python", PYTHON)
        self._script("psp", f'#!/bin/sh\nexec {sys.executable} -P -m sandbox.cli.entry "$@"\n')

    def run(self, action: dict[str, Any], inputs: dict[str, str] | None = None) -> tuple[int, dict[str, str]]:
        """Run an action. Return the exit code of its last step, and its outputs."""
        given = {name: value.get("default", "") for name, value in action["inputs"].items()} | (inputs or {})
        assert given.keys() == action["inputs"].keys()
        context = {f"inputs.{name}": value for name, value in given.items()}
        context |= {"github.action_path": str(ROOT), "steps.python.outputs.python-path": self.python}
        context |= {f"env.{name}": value for name, value in self.variables.items()}
        for step in action["runs"]["steps"]:
            if "uses" in step:
                self.used.append(step["uses"])
                [self.fill(str(value), context) for value in step.get("with", {}).values()]
                continue
            assert "${{" not in step["run"], "an expression in a script would be code: pass it in `env`"
            code, outputs = self._run_step(step, context)
            context |= {f"steps.{step.get('id')}.outputs.{name}": value for name, value in outputs.items()}
            if code != 0:
                return code, {}
        return 0, {name: self.fill(output["value"], context) for name, output in action.get("outputs", {}).items()}

    def fill(self, text: str, context: dict[str, str]) -> str:
        """Replace the expressions in a text. Raises KeyError if one is unknown."""
        return re.sub(r"\$\{\{ *(\S+) *\}\}", lambda found: context[found[1]], text)

    def _run_step(self, step: dict[str, Any], context: dict[str, str]) -> tuple[int, dict[str, str]]:
        assert step["shell"] == "bash", "a step of an action must name its shell"
        files = {name: self.temp / name for name in ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH")}
        for file in files.values():
            file.write_text("")
        env = environment() | {"RUNNER_TEMP": str(self.temp)} | {name: str(file) for name, file in files.items()}
        env |= self.variables | {name: self.fill(value, context) for name, value in step.get("env", {}).items()}
        env["PATH"] = os.pathsep.join([*self.path, env["PATH"]])
        script = self.temp / "step.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.temp, env=env, capture_output=True, text=True, timeout=180, start_new_session=True, check=False,
        )  # fmt: skip
        self.printed += done.stdout + done.stderr
        self.variables |= dict(line.split("=", 1) for line in files["GITHUB_ENV"].read_text().splitlines())
        self.path = [*files["GITHUB_PATH"].read_text().splitlines(), *self.path]
        return done.returncode, dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())

    def _script(self, name: str, text: str) -> str:
        path = self.temp / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """Yield a job. A sandbox that it started ends with the test."""
    yield Job(tmp_path)
    data = tmp_path / "psp-sandbox/data"
    if (data / "psp.lock").exists():
        subprocess.run(
            [sys.executable, "-P", "-m", "sandbox.cli.entry", "down", "--data", str(data)], env=environment(), check=False
        )


def test_the_action_starts_a_sandbox_that_outlives_its_step(job: Job) -> None:
    code, outputs = job.run(ACTION, {"options": "--workers 2  --api-processes 1"})
    assert code == 0, job.printed
    installs = (job.temp / "installed").read_text().splitlines()
    assert [line.split(" install ")[1] for line in installs] == [
        f"--no-deps --require-hashes -r {ROOT}/requirements.txt", f"--no-deps {ROOT}"
    ]  # fmt: skip
    assert job.used == ["actions/setup-python@v5"]

    # The variables and the outputs are the same, and a later step can use them.
    assert job.variables.keys() - {"PSP_LOGS"} == {"PSP_URL", "PSP_API_KEY", "PSP_ADMIN_KEY", "PSP_IPN_URL", "PSP_IPN_SECRET"}
    assert {f"PSP_{name.upper().replace('-', '_')}": value for name, value in outputs.items()} == job.variables
    with httpx.Client(base_url=outputs["url"], headers={"X-API-KEY": outputs["api-key"]}, trust_env=False) as client:
        assert client.get("/api/v1/balance").json()["available_balance"] == "1000000.00"
        admin = {"X-ADMIN-KEY": outputs["admin-key"]}
        assert client.post("/sandbox/v1/merchants", json={"name": "job"}, headers=admin).status_code == 201
    assert httpx.get(f"{outputs['ipn-url']}/health").status_code == 200
    assert shutil.which("psp", path=os.pathsep.join(job.path)) is not None
    assert all(shutil.which("python", path=folder) is None for folder in job.path), "the job's own Python must stay the first"

    # Everything secret is masked before anything else could print it.
    masked = re.findall(r"(?m)^::add-mask::(.*)$", job.printed)
    assert masked == [outputs["api-key"], outputs["admin-key"], outputs["ipn-secret"]]
    unmasked = re.sub(r"(?m)^::add-mask::.*$", "", job.printed)
    assert not any(secret in unmasked for secret in masked)

    # The logs: each in a group, then uploaded. The artifact has none of the secrets.
    job.printed = ""
    assert job.run(LOGS_ACTION)[0] == 0, job.printed
    assert "::group::api.log\n" in job.printed
    assert job.used[-1] == "actions/upload-artifact@v4"
    logs = "".join(path.read_text() for path in Path(outputs["logs"]).iterdir())
    assert not any(secret in logs for secret in masked)


def test_the_action_fails_with_the_logs_if_the_sandbox_does_not_start(job: Job) -> None:
    (job.temp / "psp").write_text("#!/bin/sh\necho port taken >&2\nexit 1\n")
    code, _ = job.run(ACTION, {"version": "1.2.3"})
    assert code == 1
    assert "::error title=PSP Sandbox::The sandbox did not start.\n" in job.printed
    assert "port taken" in job.printed
    assert (job.temp / "installed").read_text().splitlines()[-1].endswith("install psp-sandbox[server]==1.2.3")
    assert job.variables.keys() == {"PSP_LOGS"}
    job.printed = ""
    assert job.run(LOGS_ACTION)[0] == 0
    assert "port taken" in job.printed


def test_the_action_gives_up_after_the_timeout(job: Job) -> None:
    (job.temp / "psp").write_text("#!/bin/sh\necho still starting >&2\nexec sleep 1000\n")
    code, _ = job.run(ACTION, {"timeout": "1"})
    assert code == 1
    assert "The sandbox was not ready within 1 seconds." in job.printed
    assert "still starting" in job.printed


def commands_of(node: Any) -> Iterator[str]:
    """Yield the lines of all scripts in a workflow."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("run", "script"):
                yield from ("\n".join(value) if isinstance(value, list) else value).splitlines()
            else:
                yield from commands_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from commands_of(value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_a_workflow_uses_only_what_exists(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    lines = [shlex.split(line, comments=True) for line in commands_of(workflow)]
    assert any("pytest" in line or line == ["npm", "test"] for line in lines)
    for name, *arguments in lines:
        if name == "psp":
            psp = typer.main.get_command(create_app(arguments))
            assert isinstance(psp, TyperGroup)
            psp.commands[arguments[0]].make_context(arguments[0], arguments[1:])
    for used, given in re.findall(r"uses: your-org/psp-sandbox(\S*)@main(?:\n +with: (.*))?", path.read_text()):
        action = yaml.safe_load((ROOT / used.strip("/") / "action.yml").read_text())
        assert (yaml.safe_load(given) or {}).keys() <= action["inputs"].keys()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_the_page_shows_the_workflows_as_they_are(path: Path) -> None:
    assert f"```yaml\n{path.read_text()}```" in PAGE.read_text()


def test_the_image_for_tests_is_what_the_container_class_expects() -> None:
    containers = pytest.importorskip("psp_sandbox.testcontainers")
    stage = re.split(r"(?m)^FROM ", (ROOT / "Dockerfile").read_text())
    (image,) = [text for text in stage if text.startswith("base AS all-in-one\n")]
    assert f"EXPOSE {containers.API_PORT} {containers.IPN_PORT}" in image
    (command,) = re.findall(r"(?m)^CMD (.*)$", image)
    psp = shlex.split(json.loads(command)[2])
    assert psp[:3] == ["exec", "psp", "up"]
    assert psp[psp.index("--ready-file") + 1] == containers.READY_FILE
    assert psp[-2:] == [">", "/dev/null"], "standard output would show the keys in the container's log"
    assert f"test -f {containers.READY_FILE} && alive {containers.API_PORT} /health" in image
    assert "ENV SANDBOX_ADMIN_KEY" not in image
