"""Bulk credit files: every row is reported, a large file does not block other requests, and ambiguous rows credit nobody."""

import asyncio
import io
import threading
import time
import uuid
from collections import deque
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.domain.errors import Problem
from sandbox.domain.ids import IdSource
from sandbox.domain.money import ZERO
from sandbox.domain.unit import CommandResult, IdempotencyKey, UnitOfWork
from sandbox.infrastructure.large_work import Turns
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.users.bulk_credit import csv_rows
from sandbox.users.bulk_credit import service as service_module
from sandbox.users.bulk_credit.csv_rows import Row, read_rows
from sandbox.users.bulk_credit.process import _decide
from sandbox.users.bulk_credit.service import BulkCreditService
from sandbox.users.bulk_credit.upload import MAX_FILE_SIZE, Upload
from tests.harness.work import request_of, units_of_work
from tests.harness.world import World
from tests.test_bulk_credit import PATH, counts, items, send, upload, wait_until_done
from tests.test_users import make_user, summary

HEADER = b"uuid,amount\n"
USER = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"


class EndlessFile(io.RawIOBase):
    """A file with an endless number of rows. It ends once the test sets `is_ended`."""

    def __init__(self) -> None:
        super().__init__()
        self.lines_read = self.awaited_lines = 0
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self.reading_started = asyncio.Event()
        self.awaited_lines_read = asyncio.Event()
        self.is_ended = False

    def readline(self, size: int | None = -1, /) -> bytes:
        self.lines_read += 1
        if self.lines_read == 1:
            return HEADER
        self._loop.call_soon_threadsafe(self.reading_started.set)
        if self.lines_read == self.awaited_lines:
            self._loop.call_soon_threadsafe(self.awaited_lines_read.set)
        if threading.get_ident() != self._loop_thread:
            time.sleep(0.0001)  # or it would reach the maximum number of rows before the test is done
        return b"" if self.is_ended else b"x,1\n"

    async def wait_for_lines(self, count: int) -> None:
        """Wait until `count` more lines have been read."""
        self.awaited_lines = self.lines_read + count
        await self.awaited_lines_read.wait()


class WatchedFile(io.BytesIO):
    """A file that records how many lines the event loop reads without letting other tasks run, and the most bytes per read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.lines_this_turn = self.max_lines_per_turn = self.max_bytes_per_read = 0
        self._loop_thread = threading.get_ident()

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.lines_this_turn += threading.get_ident() == self._loop_thread
        self.max_lines_per_turn = max(self.max_lines_per_turn, self.lines_this_turn)
        self.max_bytes_per_read = max(self.max_bytes_per_read, len(line))
        return line


async def store(service: BulkCreditService, world: World, file: io.IOBase) -> CommandResult:
    key = str(uuid.uuid4())
    upload = Upload(file, b"")  # type: ignore[arg-type]  # only readline is called
    return await service.upload_bulk_credit(request_of(world.merchant_id, IdempotencyKey(key, key.encode())), upload)


def rows_of(content: bytes) -> list[Row]:
    return [row for row in read_rows(io.BytesIO(HEADER + content)) if row is not None]


@pytest.mark.parametrize("line", [b"x,1\n", b"\n", b"  \r\n", b" " * 2000 + b"\n"])
def test_a_file_with_too_many_lines_is_refused_even_if_they_are_blank(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(csv_rows, "MAX_ROWS", 500)
    deque(read_rows(io.BytesIO(HEADER + line * 500)), maxlen=0)
    with pytest.raises(Problem) as caught:
        deque(read_rows(io.BytesIO(HEADER + line * 501)), maxlen=0)
    assert caught.value.code == "PAYLOAD_TOO_LARGE"
    assert "500 rows" in caught.value.detail


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("line", [f"{USER},1\n".encode(), b"\n", b"\t \r\n", b'"' * 1500 + b"\n"])
async def test_reading_a_large_file_lets_other_tasks_run(world: World, monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(service_module, "_LINES_PER_PART", 50)
    file = WatchedFile(HEADER + line * 2000)

    async def start_new_turns() -> None:
        while True:
            file.lines_this_turn = 0
            await asyncio.sleep(0)

    turns = asyncio.create_task(start_new_turns())
    result = await store(BulkCreditService(units_of_work()), world, file)
    turns.cancel()
    assert result.status == 202
    assert file.max_lines_per_turn <= 2 * 50 + 1, "a long line must be read at most twice, and the header once"


def test_blank_lines_count_for_line_numbers_but_are_not_rows(world: World) -> None:
    user_id = make_user(world)
    content = HEADER + b"\n" * 3000 + f"{user_id},7\n \r\n{user_id},8\n\n".encode()
    activity_id = send(world, content).json()["activity_id"]
    assert counts(wait_until_done(world, activity_id)) == (2, 0, 2, 0)
    assert [item["line"] for item in items(world, activity_id)] == [3002, 3004]
    assert summary(world, user_id)["credited"] == "15.00"


def test_a_line_that_is_too_long_is_invalid_and_credits_nothing(world: World) -> None:
    """If it were cut after 1000 bytes, this line would credit 1.00 instead of 100.00."""
    user_id = make_user(world)
    too_long = f"{user_id},".ljust(999) + "100.00"
    content = HEADER + f"{user_id},2\n{too_long}\n{user_id},3\n{too_long}".encode()
    activity_id = send(world, content).json()["activity_id"]
    assert counts(wait_until_done(world, activity_id)) == (4, 2, 2, 0)
    rows = items(world, activity_id)
    assert [item["status"] for item in rows] == ["SUCCEEDED", "INVALID", "SUCCEEDED", "INVALID"]
    assert [item["error"] for item in rows if item["status"] == "INVALID"] == ["is longer than 1000 bytes"] * 2
    assert rows[1]["uuid"].startswith(user_id)
    assert summary(world, user_id)["credited"] == "5.00"


@pytest.mark.parametrize(("length", "status"), [(999, "PENDING"), (1000, "PENDING"), (1001, "INVALID"), (200_000, "INVALID")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_may_have_up_to_1000_bytes(length: int, status: str, end: str) -> None:
    line = f"{USER},5".ljust(length - len(end)) + end
    assert [row.status for row in rows_of(f"x,1\n{line}{USER},6\n".encode())] == ["INVALID", status, "PENDING"]


def test_a_very_long_line_is_never_read_as_a_whole() -> None:
    file = WatchedFile(HEADER + b"x" * 3_000_000 + b"\nx,1\n" + b" " * 3_000_000)
    assert [row.line for row in read_rows(file) if row is not None] == [2, 3, 4]
    assert file.max_bytes_per_read <= 64 * 1024


def test_a_header_that_is_too_long_is_refused() -> None:
    with pytest.raises(Problem, match="header"):
        deque(read_rows(io.BytesIO(HEADER.strip().ljust(1000) + f"{USER},5\n".encode())), maxlen=0)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ('{},"2.00', "INVALID"),
        ('"{},2.00', "INVALID"),
        ('"{}","2.00', "INVALID"),
        ('{},"2.00""', "INVALID"),
        ('{},"2"0.00', "INVALID"),
        ('{},2.00"', "INVALID"),
        ('{},"', "INVALID"),
        ('{},"2.00"', "PENDING"),
        ('"{}","2.00"\r', "PENDING"),
        (' "{}"," 2.00 " ', "PENDING"),
    ],
)
def test_unbalanced_or_misplaced_quotes_make_a_row_invalid(line: str, status: str) -> None:
    first, second = rows_of(f"{line.format(USER)}\n{USER},3\n".encode())
    assert (first.status, second.status) == (status, "PENDING")
    assert status == "INVALID" or (first.user_id, first.amount) == (USER, "2.00")


def test_a_row_with_an_unclosed_quote_credits_nothing(world: World) -> None:
    user_id = make_user(world)
    activity_id = send(world, HEADER + f'{user_id},"2.00\n{user_id},"3.00"\n'.encode()).json()["activity_id"]
    assert counts(wait_until_done(world, activity_id)) == (2, 1, 1, 0)
    assert "quote" in items(world, activity_id, status="INVALID")[0]["error"]
    assert summary(world, user_id)["credited"] == "3.00"


@pytest.mark.parametrize("excess", [1, 1024**2], ids=["by_a_byte", "by_a_megabyte"])
def test_a_file_that_is_too_large_is_refused_with_the_limit(world: World, excess: int) -> None:
    response = send(world, HEADER.ljust(MAX_FILE_SIZE + excess))
    assert (response.status_code, response.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert response.json()["detail"] == "The file is larger than 50 MB; split it."


@pytest.mark.parametrize("second", [HEADER, b""])
def test_a_form_with_two_files_is_refused(world: World, second: bytes) -> None:
    files = [("file", ("a.csv", HEADER)), ("other", ("b.csv", HEADER)), ("file", ("c.csv", second))]
    response = world.client.post(PATH, files=files, headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())})
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert [error["field"] for error in response.json()["errors"]] == ["file"]


@pytest.mark.usefixtures("pool")
async def test_two_merchants_files_are_read_at_a_time_and_further_ones_wait(world: World) -> None:
    service = BulkCreditService(units_of_work())
    with World.create(world.stack) as other, World.create(world.stack) as waiting:
        first, second, third, again = (EndlessFile() for _ in range(4))
        tasks = [asyncio.create_task(store(service, *pair)) for pair in ((world, first), (other, second))]
        await asyncio.gather(first.reading_started.wait(), second.reading_started.wait())
        tasks.append(asyncio.create_task(store(service, waiting, third)))
        # The order of arrival decides whose turn it is next.
        while not service._turns.is_awaited():  # noqa: ASYNC110 - nothing signals that somebody has begun to wait
            await asyncio.sleep(0.001)
        tasks.append(asyncio.create_task(store(service, world, again)))
        await first.wait_for_lines(2000)
        assert not third.reading_started.is_set()
        first.is_ended = True
        await third.reading_started.wait()
        second.is_ended = third.is_ended = again.is_ended = True
        assert [result.status for result in await asyncio.gather(*tasks)] == [202] * 4


@pytest.mark.usefixtures("pool")
async def test_writes_of_other_merchants_do_not_wait_for_uploads_that_are_being_read(world: World) -> None:
    work = units_of_work()
    service = BulkCreditService(work)
    with World.create(world.stack) as other, World.create(world.stack) as third:
        files = EndlessFile(), EndlessFile()
        tasks = [asyncio.create_task(store(service, *pair)) for pair in zip((world, other), files, strict=True)]
        await asyncio.gather(*(file.reading_started.wait() for file in files))
        done = CommandResult(200, b"{}")
        assert await work.store(request_of(third.merchant_id, IdempotencyKey("key", b"")), done) == done
        for file in files:
            file.is_ended = True
        assert [result.status for result in await asyncio.gather(*tasks)] == [202] * 2


@pytest.mark.usefixtures("pool")
async def test_a_merchant_with_too_many_waiting_uploads_gets_429(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "Turns", partial(Turns, max_waiting=1))
    service = BulkCreditService(units_of_work())
    file = EndlessFile()
    tasks = [asyncio.create_task(store(service, world, file))]
    await file.reading_started.wait()
    tasks.append(asyncio.create_task(store(service, world, io.BytesIO(HEADER))))
    await file.wait_for_lines(2000)
    with pytest.raises(Problem) as caught:
        await store(service, world, io.BytesIO(HEADER))
    assert (caught.value.status, caught.value.code) == (429, "RATE_LIMITED")
    assert int(caught.value.headers["Retry-After"]) > 0
    file.is_ended = True
    assert [result.status for result in await asyncio.gather(*tasks)] == [202, 202]


@given(st.lists(st.text(max_size=60) | st.binary(max_size=3000).map(lambda b: b.decode("latin-1"))))
def test_each_line_is_at_most_one_row_whatever_it_contains(lines: list[str]) -> None:
    encoded = [line.replace("\n", " ").encode() for line in lines]
    rows = rows_of(b"\n".join(encoded))
    assert {row.status for row in rows} <= {"PENDING", "INVALID"}
    assert len({row.line for row in rows}) == len(rows) <= len(encoded)


# The tests below exceed the largest sums that the database can store.


def test_a_row_that_exceeds_a_users_maximum_is_invalid_and_the_other_rows_are_credited(world: World) -> None:
    user_id = make_user(world)
    rows = [(user_id, f"{999_999_999_999 - number}.99") for number in range(101)]
    activity_id = upload(world, [*rows, (user_id, "1")])
    activity = wait_until_done(world, activity_id)
    assert counts(activity) == (102, 1, 101, 0)
    (refused,) = items(world, activity_id, status="INVALID")
    assert (refused["line"], refused["error"]) == (102, "amount: would raise the user's credits above 99999999999999.99")
    world.assert_clean()


def test_a_row_that_exceeds_the_maximum_of_all_wallets_is_invalid() -> None:
    balances = {"USER_FUNDS": Decimal("-99999999999999999.00")}
    unit = UnitOfWork(
        "m", datetime(2031, 1, 1, tzinfo=UTC), IdSource(0, 0, lambda bits: 0), "success", load_catalogue(), balances
    )
    rows = [{"line": line, "user_id": "u", "amount": amount, "credited": ZERO} for line, amount in ((2, "1.00"), (3, "0.99"))]
    outcomes, credits_ = _decide(unit, rows, frozenset())
    assert [outcome.status for outcome in outcomes] == ["INVALID", "SUCCEEDED"]
    assert outcomes[0].error == "amount: would raise the total of all wallets above 99999999999999999.99"
    assert [credit.amount for credit in credits_] == ["0.99"]
