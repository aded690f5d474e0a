"""Run the tests of the example shop, or of copies of it, in a pytest of their own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

SHOP: Final = Path(__file__).parent.parent.parent / "examples" / "shop"
_UNUSED_PLUGINS: Final = ("cacheprovider", "schemathesis", "faker", "anyio", "valkey", "asyncio", "hypothesispytest")


@dataclass(frozen=True)
class Report:
    """What a run of pytest reported."""

    outcomes: dict[str, str]
    """`package.module::test[id]` → `passed`, `failed`, `error` (only outside of the test itself) or `skipped`."""
    output: str


def run_tests(folder: Path, *arguments: str) -> Report:
    """Run pytest in a folder. Its plugin starts a sandbox."""
    results = folder / "results.xml"
    # With several API processes, as the suite's sandbox has, a fault can need a moment to be known to all of them.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PSP_"))}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(folder), f"--junitxml={results}"]
    command += [option for plugin in _UNUSED_PLUGINS for option in ("-p", f"no:{plugin}")]
    done = subprocess.run([*command, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)
    output = done.stdout + done.stderr
    assert done.returncode in (0, 1), output
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(results).iter("testcase"):  # noqa: S314 (our own pytest wrote it)
        name, outcome = f"{case.get('classname')}::{case.get('name')}", _outcome(case)
        # A test that fails in its teardown too is listed twice.
        outcomes[name] = "failed" if "failed" in (outcome, outcomes.get(name)) else outcome
    return Report(outcomes, output)


def _outcome(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    return "failed" if "failure" in kinds else "error" if "error" in kinds else "skipped" if "skipped" in kinds else "passed"
