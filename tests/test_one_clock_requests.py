"""No step of one clock begins while an application waits for an answer, also if the answer comes in parts."""

import platform
import socket
import ssl
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from psp_sandbox.testing.one_clock import clock_file, followers
from psp_sandbox.testing.one_clock.followers import Move
from tests.harness.certificates import certificate
from tests.harness.one_clock import NEEDS_ONE_CLOCK, Clocks, read
from tests.harness.supervised import wait_for

pytestmark = NEEDS_ONE_CLOCK

WAITS = {
    "alone": "c.settimeout(600)",
    "with a file that wakes it": """
import os, select
both, (woken, _) = select.poll(), os.pipe()
both.register(c, select.POLLIN)
both.register(woken, select.POLLIN)
assert both.poll(600_000)
""",
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_an_answer_on_a_connection_has_its_time_limit_in_real_time(clocks: Clocks, wait: str) -> None:
    """A client that waits for an answer would otherwise time out at each move."""
    program = (
        f"import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); {wait}\nprint(c.recv(9).decode())"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = clocks.start(sys.executable, "-c", program, str(server.getsockname()[1]))
        connection, _ = server.accept()
        with connection:
            wait_for(lambda: clocks.file.open_requests().get(process.pid) == 1, "the wait to begin")
            clocks.advance(timedelta(hours=25))
            connection.sendall(b"an answer")
            assert process.communicate()[0] == "an answer\n"


def test_after_a_request_that_had_no_answer_in_time_the_next_one_is_awaited(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slow answer would otherwise let the clocks pass the time limits of later requests."""
    monkeypatch.setattr(followers, "_MAX_REQUEST_SECONDS", 0.05)
    program = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for _ in range(2):
    connection.sendall(b"asks")
    connection.recv(9)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = clocks.start(sys.executable, "-c", program, str(server.getsockname()[1]))
        connection, _ = server.accept()
        with connection:
            connection.recv(9)
            assert clocks.file.open_requests() == {process.pid: 1}
            clocks.advance(timedelta(minutes=1))
            assert clocks.file.open_requests() == {process.pid: 0}, "it is given up"
            connection.sendall(b"answers")
            connection.recv(9)
            assert clocks.file.open_requests() == {process.pid: 1}
            connection.sendall(b"answers")
            assert process.wait() == 0
    assert clocks.file.open_requests() == {process.pid: 0}


def test_the_wait_for_requests_shrinks_after_one_in_vain_and_grows_again(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, the later steps of a long move would give up requests that are only a little slow."""
    monkeypatch.setattr(followers, "_MAX_REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(followers, "_MIN_STEP_SECONDS", 0.01)
    waits: list[float] = []
    monkeypatch.setattr(clocks.file, "hold_requests", waits.append)
    is_busy = True
    move = Move(clocks.file, clocks.file.now + timedelta(hours=1), lambda: is_busy)
    move.next_stop()
    is_busy = False
    for _ in range(9):
        move.next_stop()
    waits = [wait for wait in waits if wait]
    assert waits[:2] == [0.1, 0.05]
    assert waits[1:] == sorted(waits[1:])
    assert waits[-1] == 0.1


LOOP = """
import select, socket, sys
connection, loop = socket.create_connection(("127.0.0.1", int(sys.argv[1]))), select.epoll()
connection.setblocking(False)
loop.register(connection, select.EPOLLIN)
connection.send(sys.argv[2].encode())
while True:
    loop.poll()
    connection.recv(1, socket.MSG_PEEK)
    print("read", len(connection.recv(999)), 0, flush=True)
"""
"""A client on an event loop: the library cannot see what it waits for."""
HTTP = "HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "a length": ("GET / ", [f"{HTTP}Content-Length: 4\r\n\r\n", "ab", "cd"]),
    "a length after another header": ("GET / ", [f"{HTTP}X-Content-Length: 0\r\ncontent-length:4\r\n\r\nab", "cd"]),
    "chunks": ("GET / ", [f"{HTTP}Transfer-Encoding: chunked\r\n\r\n", "2\r\nab\r\n0\r", "\n\r\n"]),
    "an answer before the answer": ("GET / ", ["HTTP/1.1 100 Continue\r\n\r\n", f"{HTTP}Content-Length: 0\r\n\r\n"]),
    "a single part": ("GET / ", [f"{HTTP}Content-Length: 2\r\n\r\nab"]),
    "a head alone": ("HEAD / ", [f"{HTTP}Content-Length: 4\r\n\r\n"]),
    "no content": ("GET / ", ["HTTP/1.1 204 No Content\r\n\r\n"]),
    "PostgreSQL": ("Q", ["Z\0\0\0\5I"]),
}


@pytest.mark.parametrize(("request_text", "parts"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_awaited_until_its_last_part(clocks: Clocks, request_text: str, parts: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = clocks.start(sys.executable, "-c", LOOP, str(server.getsockname()[1]), request_text)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(9) == request_text.encode()
            for number, part in enumerate(parts, 1):
                assert clocks.file.open_requests() == {process.pid: 1}, f"before part {number}"
                connection.sendall(part.encode())
                assert read(process)[1] == len(part)
            assert clocks.file.open_requests() == {process.pid: 0}
            assert clocks.file.unfinished_answers() == set(), "its end is known"
            connection.close()


def test_more_of_an_answer_is_awaited_for_a_moment_if_its_end_is_not_known(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = clocks.start(sys.executable, "-c", LOOP, str(server.getsockname()[1]), "asks")
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"a part")
            read(process)
            move = Move(clocks.file, clocks.file.now + timedelta(hours=1))
            move.next_stop()
            assert clocks.file.unfinished_answers() == set(), "a step waits until the moment is over"
            monkeypatch.setattr(clock_file.time, "monotonic_ns", lambda: 1)
            assert clocks.file.unfinished_answers() == {process.pid}, "it has begun"


TLS = """
import socket, ssl, sys
raw = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
context = ssl.create_default_context(cafile=sys.argv[2])
if sys.argv[3] == "without":
    context.options &= ~ssl.OP_ENABLE_MIDDLEBOX_COMPAT
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
def record():
    header = raw.recv(5, socket.MSG_WAITALL)
    return header + raw.recv(int.from_bytes(header[3:]), socket.MSG_WAITALL)
while True:
    try:
        tls.do_handshake()
        break
    except ssl.SSLWantReadError:
        if outgoing.pending:
            raw.sendall(outgoing.read())
        incoming.write(record())
tls.write(b"asks")
raw.sendall(outgoing.read())
while True:
    record()
    print("read", 0, 0, flush=True)
"""


@pytest.mark.parametrize("compatibility", ["with", "without"])
def test_the_tickets_of_a_tls_server_are_no_answer(clocks: Clocks, tmp_path: Path, compatibility: str) -> None:
    """Clients differ in what they send for old middleboxes. A server sends two tickets, in data of their own."""
    context = certificate(tmp_path, "127.0.0.1")
    context.minimum_version, context.num_tickets = ssl.TLSVersion.TLSv1_3, 2
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = str(server.getsockname()[1]), str(tmp_path / "cert.pem"), compatibility
        process = clocks.start(sys.executable, "-c", TLS, *arguments)
        with context.wrap_socket(server.accept()[0], server_side=True) as connection:
            assert connection.recv(9) == b"asks"
            for _ in range(context.num_tickets):
                read(process)
                assert clocks.file.open_requests() == {process.pid: 1}
            connection.sendall(b"answers")
            read(process)
            assert clocks.file.open_requests() == {process.pid: 0}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of the call is that of this machine")
def test_a_connection_that_is_closed_without_the_c_librarys_function_awaits_nothing(clocks: Clocks) -> None:
    """libuv, and so Node, closes connections so. Each request that it had given up held all steps that followed."""
    program = """
import ctypes, socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.send(b"asks")
print("asked", 0, 0, flush=True)
input()
ctypes.CDLL(None).syscall(3, connection.fileno())
print("closed", 0, 0, flush=True)
input()
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = clocks.start(sys.executable, "-c", program, str(server.getsockname()[1]))
        assert process.stdin is not None
        read(process)
        assert clocks.file.open_requests() == {process.pid: 1}
        process.stdin.write("\n")
        process.stdin.flush()
        read(process)
        assert clocks.file.open_requests() == {process.pid: 0}


def test_a_connection_that_is_being_opened_is_awaited(clocks: Clocks) -> None:
    """Otherwise, a step could pass the time limit of an event loop's connection to a server that is far away."""
    program = """
import socket, sys
connection = socket.socket()
connection.setblocking(False)
connection.connect_ex(("127.0.0.1", int(sys.argv[1])))
print("begun", 0, 0, flush=True)
input()
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = clocks.start(sys.executable, "-c", program, str(server.getsockname()[1]))
        read(process)
        assert clocks.file.open_requests() == {process.pid: 1}
