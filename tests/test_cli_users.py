"""`psp users seed`: it counts truthfully however often it runs, and makes nobody if there is nowhere to write."""

import csv
import json
from pathlib import Path
from typing import Any

from tests.harness.command import CompletedCommand, run
from tests.harness.world import World

TOTAL = 150
"""More than a page of users."""


def seed(world: World, *arguments: str) -> CompletedCommand:
    """Run `psp users seed` with the world's key."""
    return run(world, "users", "seed", *arguments, "--json")


def told(ran: CompletedCommand) -> dict[str, Any]:
    """What a run that went well printed."""
    assert ran.exit_code == 0, ran.output
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_a_second_run_makes_nobody_and_exports_the_same(world: World, tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    made = told(seed(world, "--total", str(TOTAL), "--export", str(first)))
    assert made == {"total": TOTAL, "made": TOTAL, "found": 0, "export": str(first)}
    found = told(seed(world, "--total", str(TOTAL), "--export", str(second)))
    assert found == {"total": TOTAL, "made": 0, "found": TOTAL, "export": str(second)}
    assert first.read_text("utf-8") == second.read_text("utf-8")
    more = told(seed(world, "--total", str(TOTAL + 2)))
    assert (more["made"], more["found"]) == (2, TOTAL)


def test_the_export_has_a_row_a_user(world: World, tmp_path: Path) -> None:
    file = tmp_path / "credits.csv"
    told(seed(world, "--total", "3", "--export", str(file)))
    with file.open(newline="", encoding="utf-8") as rows:
        ids = [row["uuid"] for row in csv.DictReader(rows)]
    users = {user["id"]: user["external_id"] for user in world.get("/api/v1/users").json()["data"]}
    assert [users[user_id] for user_id in ids] == ["seed-1-0", "seed-1-1", "seed-1-2"]


def test_a_file_that_cannot_be_written_is_said_before_anybody_is_made(world: World, tmp_path: Path) -> None:
    ran = seed(world, "--total", "3", "--export", str(tmp_path / "nowhere" / "credits.csv"))
    assert ran.exit_code == 2
    assert "No such file" in ran.output
    assert world.get("/api/v1/users").json()["data"] == []
