"""A bundle moves a merchant's whole world to another merchant, which then continues as the first one would have."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from sandbox.domain.ids import MIN_ID
from sandbox.domain.payout_states import STATUSES
from sandbox.infrastructure.db.engine import connection
from sandbox.worlds.bundles.columns import read_tables
from sandbox.worlds.bundles.format import BUNDLED, MAX_BYTES
from tests.harness.command import run, run_json
from tests.harness.full_world import fill_with_every_kind_of_row
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.work import pooled
from tests.harness.world import Stack, World
from tests.test_ipn import send
from tests.test_reset_and_snapshots import fill, read_all

AT = "2031-01-01T00:00:00.000Z"
PATH = "/sandbox/v1/world"


def exported(world: World) -> dict[str, Any]:
    response = world.get(PATH)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/vnd.psp.world+json"
    bundle: dict[str, Any] = response.json()
    return bundle


def put(world: World, bundle: Any, **options: Any) -> httpx.Response:
    content = bundle if isinstance(bundle, bytes) else json.dumps(bundle).encode()
    headers = {"Content-Type": "application/vnd.psp.world+json", **options.pop("headers", {})}
    return world.client.put(PATH, content=content, headers=headers, **options)


def import_into(world: World, bundle: Any) -> Any:
    response = put(world, bundle)
    assert response.status_code == 200, response.text
    return response.json()


def comparable(bundle: dict[str, Any]) -> dict[str, Any]:
    """Return a bundle without what a second export may have different: its time, and what the aggregator has read since."""
    tables = {name: table for name, table in bundle["tables"].items() if not name.startswith("vendor_")}
    return {**bundle, "created_at": None, "tables": tables}


@contextmanager
def seeded(stack: Stack, **fields: Any) -> Iterator[World]:
    with World.create(stack, **{"opening_balance": "5000.00", "seed": 11, "frozen_at": AT, **fields}) as world:
        yield world


def call(world: World, number: int, method: str, path: str, body: Any = None) -> httpx.Response:
    """Send a request whose id and idempotency key depend on nothing but its number."""
    name = f"call-{number}"
    return world.client.request(method, path, json=body, headers={"X-Request-Id": name, "X-IDEMPOTENCY-KEY": name})


def continue_with(world: World, payout_id: str) -> list[tuple[int, Any]]:
    """Make the same calls in any world that has this payout, and return their responses."""
    body = world.payout_body("0002", merchant_reference="after the export")
    responses = [
        call(world, 100, "POST", "/api/v1/payouts", body),
        call(world, 101, "POST", "/sandbox/v1/clock/advance", {"seconds": 100}),
        call(world, 102, "GET", f"/api/v1/payouts/{payout_id}/timeline"),
        call(world, 103, "GET", "/api/v1/events?limit=100"),
        call(world, 104, "GET", "/api/v1/balance/history?limit=100"),
        call(world, 105, "POST", "/api/v1/users", {"name": "Zainab"}),
        call(world, 106, "GET", "/sandbox/v1/clock/due"),
    ]
    return [(response.status_code, without_durations(response.json())) for response in responses]


def without_durations(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_durations(item) for name, item in value.items() if not name.endswith("_ms")}
    return [without_durations(item) for item in value] if isinstance(value, list) else value


def test_an_imported_world_exports_the_same_bundle(stack: Stack, world: World, receiver: Receiver) -> None:
    user_id = fill(world, receiver)
    world.post("/api/v1/payouts/advance/run")
    world.patch("/sandbox/v1/settings", {"rate_limit": 6000, "approvals_expire_after": 3600, "default_scenario": "PENDING"})
    until(lambda: world.get(f"/aggregator/v1/users/{user_id}").json().get("earned") == "50.25", 60)
    bundle = exported(world)
    assert all(bundle["tables"][name]["rows"] for name in bundle["tables"] if not name.startswith("vendor_"))
    shown = read_all(world)
    with seeded(stack, webhook_url=receiver.url) as other:
        other.create_payout()
        imported = import_into(other, bundle)
        assert (imported["imported"], imported["frozen"]) == (True, True)
        assert imported["rows"] == 1 + sum(len(table["rows"]) for table in bundle["tables"].values())
        assert comparable(exported(other)) == comparable(bundle)
        assert read_all(other) == shown
        assert other.get("/sandbox/v1/settings").json() == world.get("/sandbox/v1/settings").json()
        other.assert_clean()
        # Again into the same merchant, and back into the first one.
        import_into(other, bundle)
        import_into(world, exported(other))
        assert comparable(exported(world)) == comparable(bundle)
        world.assert_clean()


def test_every_kind_of_row_can_be_exported_and_imported(stack: Stack) -> None:
    with seeded(stack, opening_balance="1000000.00") as world, seeded(stack) as other:
        fill_with_every_kind_of_row(world)
        bundle = exported(world)
        payouts = bundle["tables"]["payouts"]
        statuses = {row[payouts["columns"].index("status")] for row in payouts["rows"]}
        assert statuses == set(STATUSES)
        import_into(other, bundle)
        assert comparable(exported(other))["tables"] == comparable(bundle)["tables"]
        other.assert_clean()
        import_into(world, exported(other))
        assert comparable(exported(world))["tables"] == comparable(bundle)["tables"]
        # The copy remembers the bank's message too.
        repeated = {"psp_reference": "BANK-1", "status": "SUCCESS"}
        assert send(other, repeated, message_id="msg_1").headers["Idempotent-Replayed"] == "true"


def test_an_imported_world_continues_as_the_original_does(stack: Stack) -> None:
    """The same calls get the same ids and answers, and a frozen clock delivers the pending webhooks of both."""
    with Receiver() as one, Receiver() as two, seeded(stack) as world, seeded(stack, name="other", seed=11) as other:
        one.respond = lambda _: (200 if one.received[5:] else 500, {}, b"")
        created = call(world, 0, "POST", "/api/v1/webhook-endpoints", {"url": one.url})
        payouts = [
            call(world, n, "POST", "/api/v1/payouts", world.payout_body(suffix, merchant_reference=f"ref-{n}")).json()
            for n, suffix in enumerate(("0012", "0011", "0004"), 1)
        ]
        world.client.post("/sandbox/v1/drain")
        bundle = exported(world)
        one.respond = lambda _: (200, {}, b"")
        one.received.clear()
        # The second sandbox delivers to its own receiver.
        rows = bundle["tables"]["webhook_endpoints"]
        place = rows["columns"].index("url")
        for row in rows["rows"]:
            row[place] = two.url
        (endpoint,) = import_into(other, bundle)["endpoints"]
        assert endpoint["secret"] not in (None, created.json()["secret"])
        first = continue_with(world, payouts[0]["id"])
        assert [status for status, _ in first] == [201, 200, 200, 200, 200, 201, 200]
        second = continue_with(other, payouts[0]["id"])
        for number, (expected, found) in enumerate(zip(first, second, strict=True)):
            assert found == expected, number

        def webhooks(receiver: Receiver) -> list[tuple[str, bytes]]:
            return [(request.headers["webhook-id"], request.body) for request in receiver.received]

        assert len(one.received) > 10
        assert webhooks(two) == webhooks(one)
        other.assert_clean()


def test_the_replay_of_an_idempotency_key_moves_too(stack: Stack) -> None:
    with seeded(stack) as world, seeded(stack) as other:
        body = world.payout_body(merchant_reference="once")
        first = world.post("/api/v1/payouts", body, "create")
        endpoint = world.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/"}, "endpoint")
        import_into(other, exported(world))
        again = other.post("/api/v1/payouts", body, "create")
        assert (again.status_code, again.content, again.headers["idempotent-replayed"]) == (201, first.content, "true")
        # The stored response has a secret, which is not in the bundle. It is not executed again either.
        refused = other.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/"}, "endpoint")
        assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
        found = other.get("/api/v1/webhook-endpoints").json()["data"]
        assert [item["id"] for item in found] == [endpoint.json()["id"]]


def test_an_endpoint_with_a_known_id_keeps_its_secret_and_its_whole_url(stack: Stack, receiver: Receiver) -> None:
    url = receiver.url + "?token=t0p-s3cret"
    with seeded(stack, webhook_url=url) as world, seeded(stack, seed=12) as other:
        bundle = exported(world)
        assert "t0p-s3cret" not in json.dumps(bundle)
        (kept,) = import_into(world, bundle)["endpoints"]
        assert kept == {"id": kept["id"], "url": url, "secret": None, "public_key": None}
        world.post("/api/v1/payouts", world.payout_body())
        world.client.post("/sandbox/v1/drain")
        receiver.wait_for("payout.created")
        request = receiver.received[0]
        assert request.path.endswith("?token=t0p-s3cret")
        request.verify(world.webhook_secret)
        (new,) = import_into(other, bundle)["endpoints"]
        assert new["secret"].startswith("whsec_")
        assert new["url"].endswith("?token=[redacted]")


def test_the_journal_moves_and_neither_export_nor_import_is_in_it(stack: Stack) -> None:
    with seeded(stack) as world, seeded(stack) as other:
        call(world, 0, "POST", "/api/v1/payouts", world.payout_body())
        bundle = exported(world)
        assert [entry["path"] for entry in bundle["journal"]["calls"]] == ["/api/v1/payouts"]
        assert bundle["journal"]["complete"] is True
        import_into(other, bundle)
        shown = other.get("/sandbox/v1/requests").json()["data"]
        assert shown[::-1] == bundle["journal"]["calls"]


def test_commands_export_and_import(stack: Stack, tmp_path: Any) -> None:
    with seeded(stack) as world, seeded(stack, seed=1) as other:
        world.create_payout()
        file = tmp_path / "world.json"
        written = run_json(world, "world", "export", str(file))
        assert written["file"] == str(file)
        bundle = json.loads(file.read_text())
        assert run_json(world, "world", "export", "-")["tables"] == bundle["tables"]
        assert run_json(other, "world", "import", str(file))["imported"]
        assert comparable(exported(other))["tables"] == comparable(bundle)["tables"]
        file.write_text(json.dumps({**bundle, "version": 2}))
        refused = run(other, "world", "import", str(file))
        assert refused.exit_code == 1
        assert "version: must be 1" in refused.stderr.lower() or "version must be 1" in refused.stderr
        assert run(other, "world", "import", str(tmp_path / "none")).exit_code == 2


def test_bundles_can_be_compared_line_by_line(world: World) -> None:
    """Each row and each call is one line."""
    world.create_payout("0004")
    bundle = exported(world)
    lines = [line.strip().removesuffix(",") for line in world.get(PATH).text.splitlines()]
    items = [*bundle["journal"]["calls"], *(row for table in bundle["tables"].values() for row in table["rows"])]
    assert len(items) > 10
    for item in items:
        assert lines.count(json.dumps(item, separators=(",", ":"), ensure_ascii=False)) == 1


def test_a_bundle_that_makes_money_is_refused_with_the_name_of_the_check(stack: Stack) -> None:
    with seeded(stack) as world:
        world.create_payout("0004")
        bundle = exported(world)
        accounts = bundle["tables"]["accounts"]["rows"]
        available = next(row for row in accounts if row[0] == "AVAILABLE")
        funding = next(row for row in accounts if row[0] == "FUNDING")
        available[1], funding[1] = "9000.00", "-9100.00"
        response = put(world, bundle)
        assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
        assert "fail the audit's check balances_match_transfers: account AVAILABLE holds 9000.00" in response.json()["detail"]
        assert world.balance() == ("4900.00", "100.00")


def test_errors_name_the_table_the_row_and_the_column(stack: Stack) -> None:
    with seeded(stack) as world:
        for _ in range(2):
            world.create_payout("0004")
        bundle = exported(world)
        payouts = bundle["tables"]["payouts"]
        bundle["tables"]["payouds"] = payouts
        bundle["tables"]["faults"]["columns"].append("severity")
        payouts["rows"][1][payouts["columns"].index("amount")] = 100
        payouts["rows"][0].pop()
        count = len(payouts["columns"])
        errors = {error["field"]: error["message"] for error in put(world, bundle).json()["errors"]}
        assert errors == {
            "tables.payouds": "is not a table of a world; did you mean payouts?",
            "tables.faults.columns[13]": "'severity' is not a column of it",
            "tables.payouts.rows[0]": f"must have {count} values, one for each column; it has {count - 1}",
            "tables.payouts.rows[1].amount": "must be a string",
        }
        del bundle["tables"]["payouds"], bundle["tables"]["faults"]["columns"][-1]
        payouts["rows"] = [payouts["rows"][1]] * 2
        payouts["rows"][0][payouts["columns"].index("amount")] = "100.00"
        assert [error["message"] for error in put(world, bundle).json()["errors"]] == ["violates the constraint payouts_pkey"]
        payouts["rows"][0][payouts["columns"].index("due_at")] = "infinity"
        assert {error["field"] for error in put(world, bundle).json()["errors"]} == {
            "tables.payouts.rows[0].due_at", "tables.payouts.rows[1].due_at",
        }  # fmt: skip


def test_a_bundle_with_too_many_rows_or_bytes_is_refused(stack: Stack) -> None:
    with seeded(stack) as world:
        bundle = exported(world)
        bundle["tables"]["vendor_transactions"]["rows"] = [[]] * 100_001
        response = put(world, bundle)
        assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "tables")
        assert "must have at most 100000 rows" in response.json()["detail"]
        too_large = put(world, b" " * (MAX_BYTES + 1))
        assert (too_large.status_code, too_large.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_every_column_has_a_type_that_a_bundle_can_carry_and_no_other_bytes_than_these(database_url: str) -> None:
    """A new column with a secret must be left out of bundles: secrets are stored sealed, as bytes."""
    async with pooled(database_url, 1), connection(MIN_ID) as conn:
        tables = await read_tables(conn)
    assert list(tables) == list(BUNDLED)
    columns = {f"{table.name}.{column.name}": column.type for table in tables.values() for column in table.columns}
    types = {"uuid", "text", "integer", "bigint", "boolean", "real", "double precision", "timestamp with time zone", "jsonb",
             "bytea", "text[]", "numeric(20,2)", "numeric(30,2)"}  # fmt: skip
    assert set(columns.values()) == types
    assert {name for name, kind in columns.items() if kind == "bytea"} == {
        "idempotency_keys.fingerprint", "idempotency_keys.body", "vendor_dead_letters.digest"
    }  # fmt: skip
    assert {name for name in columns if "secret" in name or "headers" in name} == {
        "webhook_attempts.request_headers", "webhook_attempts.response_headers"
    }  # fmt: skip
