"""Run `psp` as a script would, inside the test process."""

import contextlib
import io
import json
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import typer

from sandbox.cli.main import create_app
from tests.harness.world import World

# Typer's test runner rebuilds all commands for each run, which takes longer than most commands.
_PSP: Final = typer.main.get_command(create_app())


@dataclass(frozen=True)
class CompletedCommand:
    """A command's exit code and output."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Standard output, then standard error."""
        return self.stdout + self.stderr


def invoke(*arguments: str) -> CompletedCommand:
    """Run `psp` with these arguments, an empty standard input and no terminal."""
    stdout, stderr = io.StringIO(), io.StringIO()
    stdin = mock.patch("sys.stdin", io.StringIO())
    with stdin, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            _PSP.main(list(arguments), prog_name="psp")
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int)
    return CompletedCommand(code, stdout.getvalue(), stderr.getvalue())


def run(world: World, *arguments: str) -> CompletedCommand:
    """Run a command with the world's URL and API key."""
    return invoke(*arguments, "--url", world.stack.api_url, "--api-key", world.api_key)


def run_json(world: World, *arguments: str, code: int = 0) -> Any:
    """Run a command with --json and return its parsed output. Fails unless the exit code is `code`."""
    result = run(world, *arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)
