"""Schemathesis, with every check, finds no deviation of a running sandbox from its OpenAPI document."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "phases",
    [
        "examples,stateful",
        # Every kind of valid and invalid value of every field, and random ones: nine tenths of all requests.
        pytest.param("fuzzing,coverage", marks=pytest.mark.slow),
    ],
)
def test_schemathesis_finds_no_failures(phases: str) -> None:
    # The script starts a separate sandbox: some cases delete merchants and could hit those of other tests.
    command = [sys.executable, ".ci/contract", "--phases", phases]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout[-20_000:]
