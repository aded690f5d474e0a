"""On a terminal, `psp` asks before it deletes everything, and shows what it is waiting for."""

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
    """Run a command with a terminal as its standard streams. Return its exit code and everything it wrote to the screen."""
    our_side, command_side = pty.openpty()
    command = [sys.executable, "-m", "sandbox.cli.main", *arguments]
    environment = {**os.environ, "PSP_URL": world.stack.api_url, "PSP_API_KEY": world.api_key, "TERM": "xterm"}
    with subprocess.Popen(command, stdin=command_side, stdout=command_side, stderr=command_side, env=environment) as process:
        os.close(command_side)
        os.write(our_side, typed.encode())
        screen = b"".join(_read(our_side))
    os.close(our_side)
    return process.returncode, screen.decode()


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(terminal, 65_536)
        except OSError:  # Linux raises this when the other side has been closed
            return
        if not chunk:
            return
        yield chunk


def test_reset_asks_for_confirmation_on_a_terminal(world: World) -> None:
    payout = world.create_payout("0004")["id"]
    code, screen = on_terminal(world, "reset", typed="n\n")
    assert code == 1
    assert "[y/N]" in screen
    assert world.payout(payout)["id"] == payout
    code, screen = on_terminal(world, "reset", typed="y\n")
    assert (code, "Reset done." in screen) == (0, True)
    assert world.get("/api/v1/payouts").json()["data"] == []


@pytest.mark.parametrize("option", ["--yes", "--json"])
def test_reset_does_not_ask_with_yes_or_json_or_without_a_terminal(world: World, option: str) -> None:
    code, screen = on_terminal(world, "reset", option)
    assert (code, "[y/N]" in screen) == (0, False)
    assert run(world, "reset").exit_code == 0, "without a terminal it must not ask"


def test_a_waiting_command_shows_on_a_terminal_what_it_waits_for(world: World) -> None:
    code, screen = on_terminal(world, "drain")
    assert (code, "Waiting for due work" in screen) == (0, True)
    code, screen = on_terminal(world, "drain", "--json")
    assert (code, "Waiting" in screen) == (0, False)


def test_a_table_shows_a_list_without_brackets() -> None:
    shown = as_table({"data": [{"id": "a", "event_types": ["payout.*", "bulk_credit.completed"]}]}, "id", "event_types")
    assert "payout.*, bulk_credit.completed" in shown.text
    assert "[" not in shown.text
