"""A later version keeps what a version promised: its API, and the worlds that it exported."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.published import DOCUMENT, FOLDER, broken, read, terms_of
from tests.harness.world import Stack, World
from tests.test_world_bundles import exported, import_into

APIS = sorted(FOLDER.glob("*.txt"))
WORLDS = sorted(FOLDER.glob("*.world.json"))


@pytest.fixture
def document() -> dict[str, Any]:
    """Return today's OpenAPI document, to change."""
    found: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return found


@pytest.mark.parametrize("path", APIS, ids=lambda path: str(path.stem))
def test_the_api_keeps_what_a_version_promised(path: Path, document: dict[str, Any]) -> None:
    assert broken(read(path), terms_of(document)) == []


def test_a_break_of_the_api_is_noticed_and_an_addition_is_not(document: dict[str, Any]) -> None:
    promised = terms_of(document)
    changed = copy.deepcopy(document)
    schemas, create = changed["components"]["schemas"], changed["paths"]["/api/v1/payouts"]["post"]
    schemas["Payout"]["properties"]["memo"] = {"type": "string"}
    schemas["Payout"]["required"].append("memo")
    schemas["NewBody"] = {"properties": {"name": {"type": "string"}}, "required": ["name"]}
    changed["paths"]["/api/v1/new"] = {"post": {**create, "parameters": [{"in": "query", "name": "n", "required": True}]}}
    schemas["CreatePayoutBodyToBank"]["required"].remove("account_number")
    assert broken(promised, terms_of(changed)) == []

    schemas["Payout"]["properties"]["amount"] = {"type": "number"}
    schemas["Payout"]["properties"]["status"]["enum"].remove("RETRY")
    schemas["Payout"]["required"].remove("version")
    schemas["CreatePayoutBodyToBank"]["required"].append("account_title")
    create["parameters"].append({"in": "header", "name": "X-Other", "required": True})
    create["responses"]["200"] = create["responses"].pop("201")
    del changed["paths"]["/api/v1/balance"], changed["webhooks"]["payout.returned"]
    assert set(broken(promised, terms_of(changed))) == {
        "Payout: no longer amount Money", "Payout: no longer status = RETRY", "Payout: no longer always version",
        "CreatePayoutBodyToBank: newly required account_title", "POST /api/v1/payouts: newly required header X-Other",
        "POST /api/v1/payouts: no longer 201 Payout", "GET /api/v1/balance is gone", "events: no longer payout.returned",
    }  # fmt: skip


@pytest.mark.parametrize("path", WORLDS, ids=lambda path: path.name.removesuffix(".world.json"))
def test_a_world_that_a_version_exported_is_imported_whole_and_goes_on(path: Path, stack: Stack) -> None:
    bundle = json.loads(path.read_text())
    with World.create(stack, seed=11, frozen_at="2031-01-01T00:00:00.000Z") as world:
        import_into(world, bundle)
        tables = exported(world)["tables"]
        for name, table in bundle["tables"].items():
            places = [tables[name]["columns"].index(column) for column in table["columns"]]
            kept = [[row[place] for place in places] for row in tables[name]["rows"]]
            assert kept == table["rows"], name
        payout = world.create_payout("0001")["id"]
        world.post("/sandbox/v1/clock/advance", {"seconds": 60})
        assert world.get(f"/api/v1/payouts/{payout}").json()["status"] == "SUCCESS"
        world.assert_clean()
