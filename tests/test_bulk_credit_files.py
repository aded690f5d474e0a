"""Bulk credit's files: whatever they hold is told row by row, holds up nobody else, and what is unclear credits nobody."""

import asyncio
import io
import uuid
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.bulk_credit import service as service_module
from sandbox.bulk_credit.process import _decide
from sandbox.bulk_credit.service import BulkCreditService
from sandbox.bulk_credit.upload import MAX_FILE_SIZE, Upload
from sandbox.db.engine import close_pool, open_pool
from sandbox.domain import bulk_credit_csv as csv_rows
from sandbox.domain.bulk_credit_csv import Row, read_rows
from sandbox.domain.errors import Problem
from sandbox.domain.ids import IdSource
from sandbox.domain.money import ZERO
from sandbox.domain.unit import CommandResult, IdempotencyKey, UnitOfWork
from sandbox.scenarios.builtin import load_catalogue
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World
from tests.test_bulk_credit import PATH, counts, finished, items, send, upload
from tests.test_users import make_user, summary

HEADER = b"uuid,amount\n"
USER = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"


@pytest.fixture
async def pool(stack: Stack) -> AsyncIterator[None]:
    await open_pool(stack.database_url, 4)
    yield
    await close_pool()


class Endless(io.RawIOBase):
    """A file of rows without end, until it is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = self.goal = 0
        self.is_begun = asyncio.Event()
        self.is_there = asyncio.Event()
        self.is_over = False

    def readline(self, size: int | None = -1, /) -> bytes:
        self.lines += 1
        if self.lines == 1:
            return HEADER
        self.is_begun.set()
        if self.lines == self.goal:
            self.is_there.set()
        return b"" if self.is_over else b"x,1\n"

    async def is_read_on(self, lines: int) -> None:
        """Wait until so many lines more were read."""
        self.goal = self.lines + lines
        await self.is_there.wait()


class Watched(io.BytesIO):
    """A file that counts how many lines are read of it before others have their turn, and how much at a time."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.lines_of_turn = self.most_of_a_turn = self.most_at_once = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.lines_of_turn += 1
        self.most_of_a_turn = max(self.most_of_a_turn, self.lines_of_turn)
        self.most_at_once = max(self.most_at_once, len(line))
        return line


async def store(service: BulkCreditService, world: World, file: io.IOBase) -> CommandResult:
    key = str(uuid.uuid4())
    upload = Upload(file, b"")  # type: ignore[arg-type]  # it can be read line by line, which is all that is done
    return await service.upload(request_of(world.merchant_id, IdempotencyKey(key, key.encode())), upload)


def rows_of(content: bytes) -> list[Row]:
    return [row for row in read_rows(io.BytesIO(HEADER + content)) if row is not None]


@pytest.mark.parametrize("line", [b"x,1\n", b"\n", b"  \r\n", b" " * 2000 + b"\n"])
def test_a_file_of_too_many_lines_is_refused_whatever_is_in_them(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(csv_rows, "MAX_ROWS", 500)
    deque(read_rows(io.BytesIO(HEADER + line * 500)), maxlen=0)
    with pytest.raises(Problem) as caught:
        deque(read_rows(io.BytesIO(HEADER + line * 501)), maxlen=0)
    assert caught.value.code == "PAYLOAD_TOO_LARGE"
    assert "500 rows" in caught.value.detail


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("line", [f"{USER},1\n".encode(), b"\n", b"\t \r\n", b'"' * 1500 + b"\n"])
async def test_others_have_their_turn_however_the_lines_look(
    world: World, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    monkeypatch.setattr(service_module, "_LINES_PER_PART", 50)
    file = Watched(HEADER + line * 2000)

    async def take_turns() -> None:
        while True:
            file.lines_of_turn = 0
            await asyncio.sleep(0)

    turns = asyncio.create_task(take_turns())
    response = await store(BulkCreditService(units_of_work()), world, file)
    turns.cancel()
    assert response.status == 202
    assert file.most_of_a_turn <= 2 * 50 + 1, "a long line is read twice, and the header once"


def test_blank_lines_are_counted_where_a_line_is_told_and_nowhere_else(world: World) -> None:
    user_id = make_user(world)
    content = HEADER + b"\n" * 3000 + f"{user_id},7\n \r\n{user_id},8\n\n".encode()
    activity_id = send(world, content).json()["activity_id"]
    assert counts(finished(world, activity_id)) == (2, 0, 2, 0)
    assert [item["line"] for item in items(world, activity_id)] == [3002, 3004]
    assert summary(world, user_id)["credited"] == "15.00"


def test_a_line_too_long_is_invalid_and_credits_nothing(world: World) -> None:
    """Cut at its 1000th byte, the line would credit 1.00 in place of 100.00."""
    user_id = make_user(world)
    cut = f"{user_id},".ljust(999) + "100.00"
    content = HEADER + f"{user_id},2\n{cut}\n{user_id},3\n{cut}".encode()
    activity_id = send(world, content).json()["activity_id"]
    assert counts(finished(world, activity_id)) == (4, 2, 2, 0)
    told = items(world, activity_id)
    assert [item["status"] for item in told] == ["SUCCEEDED", "INVALID", "SUCCEEDED", "INVALID"]
    assert [item["error"] for item in told if item["status"] == "INVALID"] == ["is longer than 1000 bytes"] * 2
    assert told[1]["uuid"].startswith(user_id)
    assert summary(world, user_id)["credited"] == "5.00"


@pytest.mark.parametrize(("length", "status"), [(999, "PENDING"), (1000, "PENDING"), (1001, "INVALID"), (200_000, "INVALID")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_how_long_a_line_may_be(length: int, status: str, end: str) -> None:
    line = f"{USER},5".ljust(length - len(end)) + end
    assert [row.status for row in rows_of(f"x,1\n{line}{USER},6\n".encode())] == ["INVALID", status, "PENDING"]


def test_a_line_without_end_is_never_held_whole() -> None:
    file = Watched(HEADER + b"x" * 3_000_000 + b"\nx,1\n" + b" " * 3_000_000)
    assert [row.line for row in read_rows(file) if row is not None] == [2, 3, 4]
    assert file.most_at_once <= 64 * 1024


def test_a_header_too_long_is_none() -> None:
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
def test_quotes_that_do_not_add_up_make_a_row_invalid(line: str, status: str) -> None:
    first, second = rows_of(f"{line.format(USER)}\n{USER},3\n".encode())
    assert (first.status, second.status) == (status, "PENDING")
    assert status == "INVALID" or (first.user_id, first.amount) == (USER, "2.00")


def test_a_quote_that_is_not_closed_credits_nothing(world: World) -> None:
    user_id = make_user(world)
    activity_id = send(world, HEADER + f'{user_id},"2.00\n{user_id},"3.00"\n'.encode()).json()["activity_id"]
    assert counts(finished(world, activity_id)) == (2, 1, 1, 0)
    assert "quote" in items(world, activity_id, status="INVALID")[0]["error"]
    assert summary(world, user_id)["credited"] == "3.00"


@pytest.mark.parametrize("beyond", [1, 1024**2], ids=["by_a_byte", "by_a_megabyte"])
def test_a_file_too_large_is_told_how_large_it_may_be(world: World, beyond: int) -> None:
    response = send(world, HEADER.ljust(MAX_FILE_SIZE + beyond))
    assert (response.status_code, response.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert response.json()["detail"] == "The file is larger than 50 MB; split it."


@pytest.mark.parametrize("second", [HEADER, b""])
def test_a_form_with_two_files_is_refused(world: World, second: bytes) -> None:
    files = [("file", ("a.csv", HEADER)), ("other", ("b.csv", HEADER)), ("file", ("c.csv", second))]
    response = world.client.post(PATH, files=files, headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())})
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert [error["field"] for error in response.json()["errors"]] == ["file"]


@pytest.mark.usefixtures("pool")
async def test_two_files_are_taken_in_at_a_time_and_the_others_wait(world: World) -> None:
    service = BulkCreditService(units_of_work())
    files = [Endless() for _ in range(3)]
    first, second, third = files
    tasks = [asyncio.create_task(store(service, world, file)) for file in (first, second)]
    await asyncio.gather(first.is_begun.wait(), second.is_begun.wait())
    tasks.append(asyncio.create_task(store(service, world, third)))
    await first.is_read_on(30_000)
    assert not third.is_begun.is_set()
    first.is_over = True
    await third.is_begun.wait()
    second.is_over = third.is_over = True
    assert [response.status for response in await asyncio.gather(*tasks)] == [202, 202, 202]


@pytest.mark.usefixtures("pool")
async def test_who_waits_too_long_for_others_files_is_told_to_come_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_WAIT_SECONDS", 0)
    service = BulkCreditService(units_of_work())
    files = [Endless(), Endless()]
    tasks = [asyncio.create_task(store(service, world, file)) for file in files]
    await asyncio.gather(*(file.is_begun.wait() for file in files))
    with pytest.raises(Problem) as caught:
        await store(service, world, io.BytesIO(HEADER))
    assert (caught.value.status, caught.value.code) == (503, "UNAVAILABLE")
    assert int(caught.value.headers["Retry-After"]) > 0
    for file in files:
        file.is_over = True
    assert [response.status for response in await asyncio.gather(*tasks)] == [202, 202]
    assert (await store(service, world, io.BytesIO(HEADER))).status == 202, "a turn that was not had is not lost"


@given(st.lists(st.text(max_size=60) | st.binary(max_size=3000).map(lambda b: b.decode("latin-1"))))
def test_whatever_is_in_the_file_each_line_is_one_row(lines: list[str]) -> None:
    kept = [line.replace("\n", " ").encode() for line in lines]
    rows = rows_of(b"\n".join(kept))
    assert {row.status for row in rows} <= {"PENDING", "INVALID", "DUPLICATE"}
    assert len({row.line for row in rows}) == len(rows) <= len(kept)


# ---- sums that no column could hold


def test_a_row_past_what_a_user_may_be_credited_is_invalid(world: World) -> None:
    """And stops neither the file nor the next one."""
    user_id = make_user(world)
    rows = [(user_id, f"{999_999_999_999 - number}.99") for number in range(101)]
    activity_id = upload(world, [*rows, (user_id, "1")])
    activity = finished(world, activity_id)
    assert counts(activity) == (102, 1, 101, 0)
    (refused,) = items(world, activity_id, status="INVALID")
    assert (refused["line"], refused["error"]) == (102, "amount: would raise the user's credits above 99999999999999.99")
    world.assert_clean()


def test_a_row_past_what_all_wallets_may_hold_is_invalid() -> None:
    balances = {"USER_FUNDS": Decimal("-99999999999999999.00")}
    unit = UnitOfWork(
        "m", datetime(2031, 1, 1, tzinfo=UTC), IdSource(0, 0, lambda bits: 0), "success", load_catalogue(), balances
    )
    rows = [{"line": line, "user_id": "u", "amount": amount, "credited": ZERO} for line, amount in ((2, "1.00"), (3, "0.99"))]
    outcomes, credits_ = _decide(unit, rows, frozenset())
    assert [outcome.status for outcome in outcomes] == ["INVALID", "SUCCEEDED"]
    assert outcomes[0].error == "amount: would raise the total of all wallets above 99999999999999999.99"
    assert [credit.amount for credit in credits_] == ["0.99"]
