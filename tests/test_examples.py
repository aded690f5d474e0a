"""Each example runs against the sandbox and exits with 0."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.world import World

EXAMPLES = Path(__file__).parent.parent / "examples"
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(EXAMPLES)]


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "receive_webhooks.py"],
        [sys.executable, "endpoint_down_75_hours.py"],
        [sys.executable, *PYTEST, "pytest_virtual_time.py"],
        ["sh", "bulk_credit.sh"],
    ],
    ids=lambda command: str(command[-1]),
)
def test_an_example_exits_with_0_and_leaves_a_consistent_ledger(world: World, command: list[str]) -> None:
    settings = {"PSP_URL": world.stack.api_url, "PSP_API_KEY": world.api_key, "PSP_ADMIN_KEY": world.stack.admin_key}
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | settings
    done = subprocess.run(command, cwd=EXAMPLES, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    world.assert_clean()
