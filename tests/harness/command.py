"""The command line as a script would use it, run inside the tests' own process."""

import contextlib
import io
import json
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import typer

from sandbox.cli.main import app
from tests.harness.world import World

# Typer's own runner builds all commands anew for each run, which takes longer than most of them do.
_PSP: Final = typer.main.get_command(app)


@dataclass(frozen=True)
class Ran:
    """What a command ended with and printed."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """All that it printed."""
        return self.stdout + self.stderr


def invoke(*arguments: str) -> Ran:
    """Run `psp` with these arguments and nothing else, and no terminal."""
    stdout, stderr = io.StringIO(), io.StringIO()
    stdin = mock.patch("sys.stdin", io.StringIO())
    with stdin, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            _PSP.main(list(arguments), prog_name="psp")
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int)
    return Ran(code, stdout.getvalue(), stderr.getvalue())


def run(world: World, *arguments: str) -> Ran:
    """Run a command with the world's key."""
    return invoke(*arguments, "--url", world.stack.api_url, "--api-key", world.api_key)


def ask(world: World, *arguments: str, code: int = 0) -> Any:
    """Run a command with --json, and return what it printed."""
    ran = run(world, *arguments, "--json")
    assert ran.exit_code == code, ran.output
    return json.loads(ran.stdout)
