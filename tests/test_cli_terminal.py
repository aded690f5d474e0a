"""What is different on a terminal: a question before everything is deleted, and a sign of life where a person waits."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandbox.cli.client import as_table
from tests.harness.command import run
from tests.harness.world import World


def on_terminal(world: World, *arguments: str, typed: str = "") -> tuple[int, str]:
    """Run a command with a terminal as its standard streams; returns its exit code and what was on the screen."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sandbox.cli.main", *arguments]
    environment = {**os.environ, "PSP_URL": world.stack.api_url, "PSP_API_KEY": world.api_key, "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        screen = b"".join(_read(ours))
    os.close(ours)
    return process.returncode, screen.decode()


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(terminal, 65_536)
        except OSError:  # Linux says so when the other side has been closed.
            return
        if not chunk:
            return
        yield chunk


def test_reset_asks_first_on_a_terminal(world: World) -> None:
    payout = world.create_payout("0004")["id"]
    code, screen = on_terminal(world, "reset", typed="n\n")
    assert code == 1
    assert "[y/N]" in screen
    assert world.payout(payout)["id"] == payout
    code, screen = on_terminal(world, "reset", typed="y\n")
    assert (code, "Reset done." in screen) == (0, True)
    assert world.get("/api/v1/payouts").json()["data"] == []


@pytest.mark.parametrize("option", ["--yes", "--json"])
def test_reset_asks_nobody_who_said_yes_or_is_a_script(world: World, option: str) -> None:
    code, screen = on_terminal(world, "reset", option)
    assert (code, "[y/N]" in screen) == (0, False)
    assert run(world, "reset").exit_code == 0, "and nobody where there is no terminal"


def test_who_waits_on_a_terminal_sees_for_what(world: World) -> None:
    code, screen = on_terminal(world, "drain")
    assert (code, "Waiting for due work" in screen) == (0, True)
    code, screen = on_terminal(world, "drain", "--json")
    assert (code, "Waiting" in screen) == (0, False)


def test_a_list_is_written_for_people_in_a_table() -> None:
    shown = as_table({"data": [{"id": "a", "event_types": ["payout.*", "bulk_credit.completed"]}]}, "id", "event_types")
    assert "payout.*, bulk_credit.completed" in shown.text
    assert "[" not in shown.text
