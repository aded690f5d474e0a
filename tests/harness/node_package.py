"""The package for Node, installed and built in a folder of its own, and projects that use it."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent
PACKAGE: Final = ROOT / "clients/typescript"
_BUILT: Final = ("node_modules", "dist", "generated", ".psp-failures")
_NO_REGISTRY: Final = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT")
_SECONDS: Final = 600


@dataclass(frozen=True)
class Node:
    """The installed and built package: its folder, and the archive that npm would publish."""

    folder: Path
    archive: Path

    def run(
        self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the package's node_modules, and return what it did."""
        return run(self.program(command[0]), *command[1:], cwd=cwd or self.folder, env=env)

    def program(self, name: str) -> str:
        """Return the path of a program of the package's node_modules."""
        return str(self.folder / "node_modules/.bin" / name)

    def project(self, folder: Path) -> Path:
        """Return a new project that has the published files of the package, and its Vitest and Jest."""
        modules = folder / "node_modules"
        modules.mkdir(parents=True)
        for name in ("vitest", "jest"):
            (modules / name).symlink_to(self.folder / "node_modules" / name)
        with tarfile.open(self.archive) as archive:
            archive.extractall(modules, filter="data")
        (modules / "package").rename(modules / "psp-sandbox")
        (folder / "package.json").write_text('{ "type": "module", "jest": { "transform": {} } }')
        return folder


def environment(**changed: str) -> dict[str, str]:
    """Return an environment in which psp is on the PATH, as a project has it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PSP_", "SANDBOX_", "PYTEST_", "VITEST"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1", "CI": "1"} | changed


def run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program, and return what it did."""
    return subprocess.run(
        command, cwd=cwd, env=env or environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS,
        check=False,
    )  # fmt: skip


@contextmanager
def built_package(copy: Path) -> Iterator[Node]:
    """Install and build a copy of the package in a folder. Skips the test if npm reaches no registry."""
    version = run("node", "--version", cwd=ROOT).stdout.strip().removeprefix("v")
    if int(version.split(".")[0]) < 20:
        pytest.skip(f"Node 20 or newer is needed, not {version}")
    folder = copy / "clients/typescript"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns(*_BUILT))
    shutil.copytree(ROOT / "openapi", copy / "openapi", ignore=shutil.ignore_patterns("__pycache__"))
    installed = run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", cwd=folder)
    if installed.returncode and _NO_REGISTRY.search(installed.stderr):
        pytest.skip("npm reaches no registry, so the package's development tools cannot be installed")
    assert installed.returncode == 0, installed.stderr
    packed = run("npm", "pack", cwd=folder)
    assert packed.returncode == 0, packed.stdout + packed.stderr
    yield Node(folder, folder / packed.stdout.strip().splitlines()[-1])
    shutil.rmtree(copy, ignore_errors=True)
