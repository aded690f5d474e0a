"""Bulk credit: each valid row is credited exactly once, and an invalid or failing row does not affect the others."""

import asyncio
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from sandbox.domain.bulk_credit import status_when_done
from sandbox.infrastructure.db.engine import close_pool, connection, open_pool
from sandbox.users.bulk_credit.process import CHUNK, FAIL_LIST, credit_chunk
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.work import units_of_work
from tests.harness.world import World
from tests.test_stream import events, watching
from tests.test_users import make_user, record, summary

PATH = "/api/v1/wallet/bulk-credit"
DONE = ("COMPLETED", "PARTIALLY_COMPLETED", "FAILED")


def send(world: World, content: bytes, key: str | None = None) -> httpx.Response:
    return world.client.post(
        PATH, files={"file": ("credits.csv", content)}, headers={"X-IDEMPOTENCY-KEY": key or str(uuid.uuid4())}
    )


def upload(world: World, rows: Sequence[tuple[str, str]]) -> str:
    response = send(world, b"uuid,amount\n" + "".join(f"{user},{amount}\n" for user, amount in rows).encode())
    assert response.status_code == 202, response.text
    assert response.json()["status"] == "UPLOADED"
    activity_id: str = response.json()["activity_id"]
    return activity_id


def wait_until_done(world: World, activity_id: str) -> dict[str, Any]:
    """Wait until the bulk credit is done, and return it."""

    def activity_if_done() -> dict[str, Any] | None:
        found: dict[str, Any] = world.get(f"{PATH}/{activity_id}").json()
        return found if found["status"] in DONE else None

    return until(activity_if_done, 60) or {}


def counts(activity: dict[str, Any]) -> tuple[int, int, int, int]:
    """Return the numbers of all, invalid, succeeded and failed rows."""
    assert activity["counts"]["total"] == activity["total"]
    return activity["total"], activity["invalid"], activity["succeeded"], activity["failed"]


def items(world: World, activity_id: str, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.get(f"{PATH}/{activity_id}/items", **filters).json()["data"]
    return found


def test_valid_rows_are_credited_and_invalid_ones_reported(world: World, receiver: Receiver) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["bulk_credit.*"]})
    first, second = make_user(world), make_user(world)
    unknown = str(uuid.uuid4())
    rows = [
        (first, "10"), (second, "20.50"), ("nobody", "1"), (first, "0"), (first, "1.234"), (unknown, "5"), (first, "10.00"),
        (first, "1,2"),
    ]  # fmt: skip
    activity_id = upload(world, rows)
    activity = wait_until_done(world, activity_id)
    assert activity["status"] == "COMPLETED"
    assert counts(activity) == (8, 5, 3, 0)
    assert activity["duplicates"] == 1
    rows_shown = items(world, activity_id)
    assert [item["line"] for item in rows_shown] == list(range(2, 10))
    statuses = ["SUCCEEDED", "SUCCEEDED", "INVALID", "INVALID", "INVALID", "INVALID", "SUCCEEDED", "INVALID"]
    assert [item["status"] for item in rows_shown] == statuses
    assert "uuid" in rows_shown[2]["error"]
    assert "amount" in rows_shown[3]["error"]
    assert items(world, activity_id, status="invalid") == items(world, activity_id, status="INVALID")
    page = world.get(f"{PATH}/{activity_id}/items", limit=3, status="INVALID").json()
    rest = world.get(f"{PATH}/{activity_id}/items", limit=3, status="INVALID", cursor=page["next_cursor"]).json()
    assert [item["line"] for item in page["data"] + rest["data"]] == [4, 5, 6, 7, 9]
    assert summary(world, first)["credited"] == "20.00"
    assert summary(world, second)["credited"] == "20.50"
    event = until(lambda: receiver.events())[0]
    assert event["data"]["activity_id"] == activity_id
    assert event["data"]["succeeded"] == 3
    world.assert_clean()


def test_bulk_credits_are_listed_newest_first(world: World) -> None:
    user = make_user(world)
    uploads = [upload(world, [(user, amount)]) for amount in ("1", "2", "3")]
    for activity_id in uploads:
        wait_until_done(world, activity_id)
    first = world.get(PATH, limit=2).json()
    rest = world.get(PATH, limit=2, cursor=first["next_cursor"]).json()
    listed = first["data"] + rest["data"]
    assert [activity["activity_id"] for activity in listed] == uploads[::-1]
    assert listed[0] == world.get(f"{PATH}/{uploads[2]}").json()
    assert rest["next_cursor"] is None
    with World.create(world.stack) as other:
        assert other.get(PATH).json()["data"] == []


def test_progress_is_streamed(world: World) -> None:
    user = make_user(world)
    with watching(world, limit=1, timeout=60, types="bulk_credit.progressed") as lines:
        activity_id = upload(world, [(user, "1"), (user, "x")])
        ((kind, data),) = events(lines)
    assert kind == "bulk_credit.progressed"
    assert data == world.get(f"{PATH}/{activity_id}").json()
    assert counts(data) == (2, 1, 1, 0)


def test_an_invalid_row_is_shown_as_it_was_uploaded(world: World) -> None:
    """No cell is misread as an escape sequence when it is stored. Only control characters are replaced."""
    cells = ["\\N", "\\.", "\\t\\x41\\", "a\tb", "é ✓", "'; --", "\x00\x1b", '"in, quotes"', "\\\\"]
    shown = ["\\N", "\\.", "\\t\\x41\\", "a�b", "é ✓", "'; --", "��", "in, quotes", "\\\\"]
    activity_id = upload(world, [(cell, cell) for cell in cells])
    assert counts(wait_until_done(world, activity_id)) == (len(cells), len(cells), 0, 0)
    assert [(item["uuid"], item["amount"]) for item in items(world, activity_id)] == [(cell, cell) for cell in shown]


def test_a_user_can_be_credited_several_times_in_one_file(world: World) -> None:
    """Each credit is a separate transfer, and the running balances follow the order of the rows."""
    user, other = make_user(world), make_user(world)
    record(world, user, "SPENT", "5.00")
    activity_id = upload(world, [(user, "1"), (other, "7"), (user, "2.50"), (user, "3.25")])
    assert counts(wait_until_done(world, activity_id)) == (4, 0, 4, 0)
    stored = world.stack.execute(
        "SELECT amount::text, credit_balance_after::text AS after, description FROM transfers "
        "WHERE merchant_id = $1 AND credit_account = $2 ORDER BY id",
        world.merchant_id,
        f"WALLET:{user}",
    )
    assert [(row["amount"], row["after"]) for row in stored] == [("1.00", "-4.00"), ("2.50", "-1.50"), ("3.25", "1.75")]
    assert [row["description"][-6:] for row in stored] == ["line 2", "line 4", "line 5"]
    assert summary(world, user)["credited"] == "6.75"
    world.assert_clean()


def test_equal_rows_are_separate_credits_and_are_counted(world: World) -> None:
    """Only a person can know whether a repeated row is meant, so it is credited, and shown with the line that it equals."""
    user, other, unknown = make_user(world), make_user(world), str(uuid.uuid4())
    rows = [
        (user, "2.50"), (user, "2.50"), (other, "2.50"), (user, "2.5"), (user.upper(), " 2.50 "), (user, "3"),
        ("x", "1"), ("x", "1"), (unknown, "1"), (unknown, "1.00"),
    ]  # fmt: skip
    fail_list = Path(os.environ[FAIL_LIST].removeprefix("@"))
    fail_list.write_text(user)
    try:
        activity_id = upload(world, rows)
        activity = wait_until_done(world, activity_id)
        assert (counts(activity), activity["duplicates"]) == ((10, 4, 1, 5), 4)
    finally:
        fail_list.unlink()
    assert world.post(f"{PATH}/retry", {"activity_id": activity_id}).status_code == 202
    activity = wait_until_done(world, activity_id)
    assert (activity["status"], counts(activity), activity["duplicates"]) == ("COMPLETED", (10, 4, 6, 0), 4)
    assert activity["counts"]["duplicates"] == 4
    shown = items(world, activity_id)
    assert {item["line"]: item["same_as_line"] for item in shown if item["same_as_line"]} == {3: 2, 5: 2, 6: 2, 11: 10}
    assert len({item["transfer_id"] for item in shown if item["status"] == "SUCCEEDED"}) == 6
    assert (summary(world, user)["credited"], summary(world, other)["credited"]) == ("13.00", "2.50")
    assert items(world, activity_id, duplicates="only") == [item for item in shown if item["same_as_line"]]
    assert [item["line"] for item in items(world, activity_id, duplicates="only", status="invalid")] == [11]
    page = world.get(f"{PATH}/{activity_id}/items", limit=2, duplicates="only").json()
    rest = world.get(f"{PATH}/{activity_id}/items", limit=2, duplicates="only", cursor=page["next_cursor"]).json()
    assert [item["line"] for item in page["data"] + rest["data"]] == [3, 5, 6, 11]
    refused = world.get(f"{PATH}/{activity_id}/items", duplicates="yes")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "duplicates")
    world.assert_clean()


def test_a_bulk_credit_invalidates_the_cached_summary(world: World) -> None:
    user_id = make_user(world)
    assert summary(world, user_id)["credited"] == "0.00"
    wait_until_done(world, upload(world, [(user_id, "3")]))
    assert summary(world, user_id)["credited"] == "3.00"


@pytest.mark.parametrize("content", [b"uuid,amount\n", b"uuid,amount", b"\xef\xbb\xbfuuid,amount\r\n\r\n"])
def test_a_file_with_only_a_header_completes_without_rows(world: World, content: bytes) -> None:
    activity = wait_until_done(world, send(world, content).json()["activity_id"])
    assert (activity["status"], counts(activity)) == ("COMPLETED", (0, 0, 0, 0))


def test_a_file_with_only_invalid_rows_fails_and_cannot_be_retried(world: World) -> None:
    activity_id = upload(world, [("nobody", "1")])
    assert wait_until_done(world, activity_id)["status"] == "FAILED"
    response = world.post(f"{PATH}/retry", {"activity_id": activity_id})
    assert (response.status_code, response.json()["code"]) == (409, "NOT_RETRYABLE")


def test_a_retry_credits_only_the_failed_rows(world: World) -> None:
    users = [make_user(world) for _ in range(3)]
    fail_list = Path(os.environ[FAIL_LIST].removeprefix("@"))
    fail_list.write_text(f"{users[1].upper()},")
    try:
        activity_id = upload(world, [(user, "10") for user in users])
        activity = wait_until_done(world, activity_id)
        assert (activity["status"], counts(activity)) == ("PARTIALLY_COMPLETED", (3, 0, 2, 1))
        response = world.post(f"{PATH}/retry", {"activity_id": activity_id})
        assert (response.status_code, response.json()) == (202, {"activity_id": activity_id, "status": "PROCESSING"})
        assert counts(wait_until_done(world, activity_id)) == (3, 0, 2, 1)
    finally:
        fail_list.unlink()
    assert world.post(f"{PATH}/retry", {"activity_id": activity_id}).status_code == 202
    activity = wait_until_done(world, activity_id)
    assert (activity["status"], counts(activity)) == ("COMPLETED", (3, 0, 3, 0))
    assert len({item["transfer_id"] for item in items(world, activity_id)} - {None}) == 3
    assert [summary(world, user)["credited"] for user in users] == ["10.00"] * 3
    response = world.post(f"{PATH}/retry", {"activity_id": activity_id})
    assert (response.status_code, response.json()["code"]) == (409, "NOT_RETRYABLE")
    world.assert_clean()


def test_a_file_sent_again_with_the_same_key_is_credited_once(world: World) -> None:
    user_id, key = make_user(world), str(uuid.uuid4())
    content = f"uuid,amount\n{user_id},7\n".encode()
    first, again = send(world, content, key), send(world, content, key)  # their multipart boundaries differ
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    wait_until_done(world, first.json()["activity_id"])
    assert summary(world, user_id)["credited"] == "7.00"
    assert send(world, content + b"x", key).json()["code"] == "IDEMPOTENCY_KEY_REUSED"


def test_a_file_with_more_rows_than_a_chunk_is_credited(world: World) -> None:
    user_id = make_user(world)
    activity = wait_until_done(world, upload(world, [(user_id, "1.00")] * (CHUNK + 10)))
    assert (activity["status"], counts(activity)) == ("COMPLETED", (CHUNK + 10, 0, CHUNK + 10, 0))
    assert activity["duplicates"] == CHUNK + 9
    assert summary(world, user_id)["credited"] == f"{CHUNK + 10}.00"
    world.assert_clean()


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"", {}, 400, "VALIDATION_ERROR"),
        (b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n', {}, 400, "VALIDATION_ERROR"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nid,sum\r\n--b--\r\n', {}, 400, "VALIDATION_ERROR"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nuuid,am', {}, 400, "VALIDATION_ERROR"),
        (b"{}", {"Content-Type": "application/json"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"uuid,amount", {"Content-Type": "text/csv"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"x", {"X-IDEMPOTENCY-KEY": ""}, 400, "INVALID_IDEMPOTENCY_KEY"),
    ],
)
def test_an_invalid_upload_is_refused(world: World, content: bytes, headers: dict[str, str], status: int, code: str) -> None:
    sent = {"Content-Type": "multipart/form-data; boundary=b", "X-IDEMPOTENCY-KEY": str(uuid.uuid4()), **headers}
    response = world.client.post(PATH, content=content, headers=sent)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text


async def test_a_worker_that_finds_nothing_left_uses_no_ids(world: World) -> None:
    """The number of workers, and their races, must not affect the ids of a repeatable world."""
    sequence = "SELECT id_sequence FROM worlds WHERE merchant_id = $1"
    other_session = await asyncpg.connect(world.stack.database_url)
    await open_pool(world.stack.database_url, 1)
    try:
        before = await other_session.fetchval(sequence, world.merchant_id)
        async with connection(world.merchant_id) as conn:
            worker_pid = conn.get_server_pid()
        async with other_session.transaction():
            await other_session.execute("SELECT FROM worlds WHERE merchant_id = $1 FOR NO KEY UPDATE", world.merchant_id)
            async with connection(world.merchant_id) as conn:
                await conn.execute(
                    "INSERT INTO bulk_credits (merchant_id, id, status, total, invalid, duplicates, succeeded, failed, "
                    "request_id, created_at, updated_at) VALUES ($1, $1, 'UPLOADED', 0, 0, 0, 0, 0, 'r', now(), now())",
                    world.merchant_id,
                )
            chunk = asyncio.create_task(credit_chunk(units_of_work(), world.merchant_id, frozenset()))
            is_waiting = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"
            await asyncio.to_thread(until, lambda: world.stack.execute(is_waiting, worker_pid))
            await other_session.execute(
                "UPDATE bulk_credits SET status = 'COMPLETED' WHERE merchant_id = $1", world.merchant_id
            )
        assert await chunk is False
        assert await other_session.fetchval(sequence, world.merchant_id) == before
    finally:
        await close_pool()
        await other_session.close()


@pytest.mark.parametrize(
    ("total", "succeeded", "failed", "status"),
    [
        (0, 0, 0, "COMPLETED"),
        (3, 3, 0, "COMPLETED"),
        (3, 2, 0, "COMPLETED"),
        (3, 2, 1, "PARTIALLY_COMPLETED"),
        (3, 0, 3, "FAILED"),
        (3, 0, 0, "FAILED"),
    ],
)
def test_the_final_status_follows_from_the_counts(total: int, succeeded: int, failed: int, status: str) -> None:
    assert status_when_done(total, succeeded, failed) == status
