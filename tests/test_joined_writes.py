"""A response's head and body are sent in one write. A lone head and the end of a connection are not delayed."""

import asyncio
from typing import Any

from sandbox.server.joined_writes import JoinedWrites


class Recorder(asyncio.Transport):
    """A transport that records the calls that affect the peer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def write(self, data: Any) -> None:
        assert not self.is_closing()
        self.calls.append(data)

    def write_eof(self) -> None:
        self.calls.append("eof")

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


async def open_transport() -> tuple[Recorder, JoinedWrites]:
    recorder = Recorder()
    return recorder, JoinedWrites(recorder, asyncio.get_running_loop())


async def test_head_and_body_are_one_write() -> None:
    recorder, joined = await open_transport()
    for data in (b"head 1 ", b"body 1", b"head 2 ", b"body 2"):
        joined.write(data)
    assert recorder.calls == [b"head 1 body 1", b"head 2 body 2"]
    await asyncio.sleep(0)
    assert len(recorder.calls) == 2


async def test_a_head_alone_is_sent_at_once() -> None:
    recorder, joined = await open_transport()
    joined.write(b"head")
    assert joined.get_write_buffer_size() == 4
    await asyncio.sleep(0)
    assert recorder.calls == [b"head"]
    assert joined.get_write_buffer_size() == 0


async def test_an_empty_body_completes_a_response() -> None:
    recorder, joined = await open_transport()
    joined.write(b"head")
    joined.write(b"")
    joined.write(b"")
    assert recorder.calls == [b"head"]


async def test_data_written_before_a_close_is_sent() -> None:
    recorder, joined = await open_transport()
    joined.write(b"head")
    joined.write_eof()
    joined.write(b"more")
    joined.close()
    assert recorder.calls == [b"head", "eof", b"more", "close"]


async def test_nothing_is_written_after_an_abort() -> None:
    recorder, joined = await open_transport()
    joined.write(b"head")
    joined.abort()
    await asyncio.sleep(0)
    assert recorder.calls == ["abort"]
