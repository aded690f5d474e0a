"""`psp users seed` can be repeated without creating users twice, and creates none if the export cannot be written."""

import csv
import json
from pathlib import Path
from typing import Any

from tests.harness.command import CompletedCommand, run
from tests.harness.world import World

TOTAL = 150
"""More users than fit on one page."""


def seed(world: World, *arguments: str) -> CompletedCommand:
    """Run `psp users seed` with the world's key."""
    return run(world, "users", "seed", *arguments, "--json")


def output_of(result: CompletedCommand) -> dict[str, Any]:
    """Return the parsed output of a successful run."""
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_second_run_creates_nobody_and_exports_the_same(world: World, tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    created = output_of(seed(world, "--total", str(TOTAL), "--export", str(first)))
    assert created == {"total": TOTAL, "made": TOTAL, "found": 0, "export": str(first)}
    found = output_of(seed(world, "--total", str(TOTAL), "--export", str(second)))
    assert found == {"total": TOTAL, "made": 0, "found": TOTAL, "export": str(second)}
    assert first.read_text("utf-8") == second.read_text("utf-8")
    more = output_of(seed(world, "--total", str(TOTAL + 2)))
    assert (more["made"], more["found"]) == (2, TOTAL)


def test_the_export_has_a_row_for_each_user(world: World, tmp_path: Path) -> None:
    file = tmp_path / "credits.csv"
    output_of(seed(world, "--total", "3", "--export", str(file)))
    with file.open(newline="", encoding="utf-8") as rows:
        ids = [row["uuid"] for row in csv.DictReader(rows)]
    users = {user["id"]: user["external_id"] for user in world.get("/api/v1/users").json()["data"]}
    assert [users[user_id] for user_id in ids] == ["seed-1-0", "seed-1-1", "seed-1-2"]


def test_an_export_file_that_cannot_be_written_is_reported_before_users_are_created(world: World, tmp_path: Path) -> None:
    result = seed(world, "--total", "3", "--export", str(tmp_path / "nowhere" / "credits.csv"))
    assert result.exit_code == 2
    assert "No such file" in result.output
    assert world.get("/api/v1/users").json()["data"] == []
