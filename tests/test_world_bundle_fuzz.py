"""A bundle is untrusted: whatever it contains, an import answers 200 or 4xx, the books balance, and a refusal has no effect."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.worlds.merchants.tables import WORLD
from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World
from tests.test_reset_and_snapshots import LISTS, fill
from tests.test_world_bundles import exported, import_into, put

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
    st.sampled_from(
        ["", "\0", "a\0b", "\ud800", "0.00", "-1.00", "1e9", "99999999999999999999.00", "infinity", "0001-01-01T00:00:00Z",
         "2031-01-01T00:00:00.000Z",
         "9999-12-31T23:59:59Z", "SUCCESS", "FAILED", "PENDING", "AVAILABLE", "a\r\nX-Injected: 1",
         "00000000-0000-0000-0000-000000000000", "[]", "{}", "null", "x" * 5000, "http://[", "file:///etc/passwd",
         "payout.failed"]
    ),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
)


@pytest.fixture(scope="module")
def rich(stack: Stack) -> Iterator[dict[str, Any]]:
    """Return the bundle of a world with rows in every table, and with deliveries that are still due."""
    with World.create(stack, opening_balance="1000000.00", seed=3) as world, Receiver() as receiver:
        fill(world, receiver)
        world.post("/api/v1/payouts/advance/run")
        receiver.respond = lambda _: (500, {}, b"")
        world.create_payout("0012")
        yield exported(world)


@pytest.fixture(scope="module")
def target(stack: Stack) -> Iterator[World]:
    with World.create(stack, opening_balance="100.00", seed=4, frozen_at="2031-01-01T00:00:00Z") as world:
        world.create_payout("0004", amount="5.00")
        yield world


class Damaged:
    """A bundle with changes. Only the changes are printed."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        self.bundle = copy.deepcopy(bundle)
        self.changes: list[tuple[str, str, Any]] = []

    def __repr__(self) -> str:
        return f"Damaged({self.changes})"

    def change(self, draw: st.DrawFn) -> None:
        """Change one place."""
        node, key, path = self.place(draw)
        kind = draw(st.sampled_from(["replace", "neighbour", "remove", "repeat", "inner"]))
        value: Any = None
        if kind == "replace":
            node[key] = value = draw(VALUES)
        elif kind == "neighbour":
            other, place, value = self.place(draw)
            node[key] = copy.deepcopy(other[place])
        elif kind == "remove":
            del node[key]
        elif kind == "repeat" and isinstance(node, list):
            value = draw(st.integers(0, len(node)))
            node.insert(value, copy.deepcopy(node[key]))
        elif kind == "inner" and isinstance(node[key], str) and node[key]:
            at = draw(st.integers(0, len(node[key]) - 1))
            value = node[key][:at] + draw(st.sampled_from(["", "9", "-", '"', "\0", "\n", "é", "}"])) + node[key][at + 1 :]
            node[key] = value
        self.changes.append((path, kind, value))

    def place(self, draw: st.DrawFn) -> tuple[Any, Any, str]:
        """Draw a container of the bundle, a key or index in it, and their path. Half of the places are cells of rows."""
        node: Any = self.bundle
        path = ""
        tables = node.get("tables")
        names = [name for name, rows in _rows(tables) if rows]
        if names and draw(st.booleans()):
            name = draw(st.sampled_from(names))
            number = draw(st.integers(0, len(tables[name]["rows"]) - 1))
            node, path = tables[name]["rows"][number], f"tables.{name}.rows[{number}]"
        while True:
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            path += f".{key}"
            inner = node[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
                return node, key, path
            node = inner


def _rows(tables: Any) -> Iterator[tuple[str, list[Any]]]:
    for name, table in tables.items() if isinstance(tables, dict) else ():
        rows = table.get("rows") if isinstance(table, dict) else None
        if isinstance(rows, list) and all(isinstance(row, list) and row for row in rows):
            yield name, rows


@st.composite
def damaged(draw: st.DrawFn, bundle: dict[str, Any]) -> Damaged:
    """Draw the bundle with one to three changes."""
    found = Damaged(bundle)
    for _ in range(draw(st.integers(1, 3))):
        found.change(draw)
    return found


def rows(world: World) -> dict[str, list[Any]]:
    """Return the merchant's rows by table, with its secrets."""
    tables = ("merchants", *(table for table in WORLD if table != "vendor_cursors"))  # the aggregator polls at any time
    found = {table: world.stack.execute(f"SELECT * FROM {table} WHERE merchant_id = $1", world.merchant_id) for table in tables}
    for lease in ("clock_held_by", "clock_held_until"):
        del found["merchants"][0][lease]
    return {table: sorted(items, key=str) for table, items in found.items()}


def use(world: World) -> None:
    """Use everything in a world that was imported; no response may be an internal error."""
    for path in (*LISTS, "/sandbox/v1/requests", "/sandbox/v1/scenarios", "/sandbox/v1/clock/due", "/sandbox/v1/overview"):
        response = world.get(path, limit=100) if path != "/sandbox/v1/scenarios" else world.get(path)
        assert response.status_code < 500, (path, response.text)
        items = response.json().get("data", []) if path in LISTS[:6] else []
        for item in items[:3]:
            assert world.get(f"{path}/{item['id']}").status_code < 500, (path, item)
    for path in ("/api/v1/balance", "/sandbox/v1/settings", "/sandbox/v1/clock", "/console"):
        assert world.get(path).status_code < 500, path
    created = world.post("/api/v1/payouts", world.payout_body("0012", amount="1.00"))
    assert created.status_code < 500, created.text
    for payout in world.get("/api/v1/payouts", limit=20).json()["data"]:
        assert world.get(f"/api/v1/payouts/{payout['id']}/timeline").status_code < 500
        assert world.post(f"/api/v1/payouts/{payout['id']}/cancel").status_code < 500
    advanced = world.client.post("/sandbox/v1/clock/advance", json={"seconds": 200})
    assert advanced.status_code < 500, advanced.text
    world.assert_clean()


def test_a_damaged_bundle_is_imported_soundly_or_refused_without_effect(rich: dict[str, Any], target: World) -> None:
    home, before = exported(target), rows(target)
    outcomes: dict[int, int] = {}

    @settings(max_examples=150, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(rich))
    def check(damaged: Damaged) -> None:
        response = put(target, json.dumps(damaged.bundle).encode())
        outcomes[response.status_code] = outcomes.get(response.status_code, 0) + 1
        assert response.status_code in (200, 400), response.text
        if response.status_code == 400:
            assert response.json()["code"] in ("VALIDATION_ERROR", "MALFORMED_JSON")
            assert rows(target) == before
            target.assert_clean()
        else:
            try:
                target.assert_clean()
                use(target)
            finally:
                import_into(target, home)
                assert rows(target) == before

    check()
    assert outcomes.keys() == {200, 400}, "some damage must be accepted, to see what it does"
    assert outcomes.get(400, 0) > 50, outcomes


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"format": "psp.world"}', b"[" * 100_000])
def test_what_is_no_bundle_is_refused(target: World, content: bytes) -> None:
    response = put(target, content)
    assert (response.status_code, response.json()["code"]) in ((400, "MALFORMED_JSON"), (400, "VALIDATION_ERROR"))
