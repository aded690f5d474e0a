"""The running sandbox keeps its own OpenAPI document: the schemathesis command line, every check and every phase."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_schemathesis_finds_nothing() -> None:
    # A sandbox of its own: some cases delete merchants, and would meet those of the other tests.
    command = [sys.executable, ".ci/contract"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ran.returncode == 0, ran.stdout[-20_000:]
