"""Schemathesis, with every check, finds no deviation of a running sandbox from its OpenAPI document."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_schemathesis_finds_no_failures() -> None:
    # The script starts a separate sandbox: some cases delete merchants and could hit those of other tests.
    command = [sys.executable, ".ci/contract"]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout[-20_000:]
