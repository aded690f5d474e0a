"""The command line as a script would use it, run inside the tests' own process."""

import json
from typing import Any

from typer.testing import CliRunner, Result

from sandbox.cli.main import app
from tests.harness.world import World


def invoke(*arguments: str) -> Result:
    """Run `psp` with these arguments and nothing else."""
    return CliRunner().invoke(app, list(arguments))


def run(world: World, *arguments: str) -> Result:
    """Run a command with the world's key."""
    return invoke(*arguments, "--url", world.stack.api_url, "--api-key", world.api_key)


def ask(world: World, *arguments: str, code: int = 0) -> Any:
    """Run a command with --json, and return what it printed."""
    ran = run(world, *arguments, "--json")
    assert ran.exit_code == code, ran.output
    return json.loads(ran.stdout)
