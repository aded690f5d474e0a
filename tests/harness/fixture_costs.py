"""How long a test's set-up and teardown take with the pytest plugin and with Vitest: `python -m tests.harness.fixture_costs`.

Both use one sandbox. The cost of a test is the difference between two runs that differ in the number of tests only, so the
start of a test runner does not count. The runs alternate, and the smallest of each counts. It needs Node and npm.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from psp_sandbox.testing.process import SandboxProcess

ROOT: Final = Path(__file__).parent.parent.parent
PACKAGE: Final = ROOT / "clients/typescript"
_COUNTS: Final = (20, 220)
_ROUNDS: Final = 3
_PYTHON: Final = """
import pytest
@pytest.mark.parametrize("number", range({count}))
def test_nothing(psp, number): pass
"""
_NODE: Final = """
import { test as base } from "vitest";
import { withPsp } from "psp-sandbox/vitest";
const test = withPsp(base);
for (let number = 0; number < {count}; number++) test(`nothing ${number}`, async ({ psp }) => {});
"""


def main() -> None:
    """Print the milliseconds of a test, and the ratio."""
    for step in (("npm", "ci", "--no-audit", "--no-fund"), ("npm", "run", "build")):
        subprocess.run(step, cwd=PACKAGE, check=True, stdout=subprocess.DEVNULL)
    sandbox = SandboxProcess()
    address = sandbox.start()
    env = {**os.environ, "PSP_URL": address.url, "PSP_ADMIN_KEY": address.admin_key or ""}
    # In the package's own folder, where its name is known.
    with tempfile.TemporaryDirectory(dir=PACKAGE, prefix="costs-") as name:
        folder = Path(name)
        runs: dict[tuple[str, int], Sequence[str]] = {}
        for count in _COUNTS:
            (folder / f"test_{count}.py").write_text(_PYTHON.replace("{count}", str(count)))
            (folder / f"{count}.test.js").write_text(_NODE.replace("{count}", str(count)))
            runs["pytest", count] = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{count}.py")
            runs["vitest", count] = ("npx", "vitest", "run", "--root", name, f"{count}.test.js")
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "vitest.config.js").write_text("export default {};\n")
        times: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
        for _ in range(_ROUNDS):
            for key, command in runs.items():
                began = time.perf_counter()
                subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
                times[key].append(time.perf_counter() - began)
    sandbox.stop()
    few, many = _COUNTS
    costs = {kind: (min(times[kind, many]) - min(times[kind, few])) / (many - few) * 1000 for kind in ("pytest", "vitest")}
    sys.stdout.write(
        f"pytest {costs['pytest']:.1f} ms, Vitest {costs['vitest']:.1f} ms, ratio {costs['vitest'] / costs['pytest']:.2f}\n"
    )


if __name__ == "__main__":
    main()
