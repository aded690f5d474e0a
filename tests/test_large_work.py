"""A merchant's large requests take turns with other merchants', and do not occupy the event loop."""

import asyncio
import threading
from functools import partial
from typing import cast

import pytest

from sandbox.domain.errors import Problem
from sandbox.http import middleware
from sandbox.http.middleware import REFUSAL_SECONDS, slow_refusals
from sandbox.http.operation import Operation
from sandbox.http.request import Request
from sandbox.infrastructure import large_work
from sandbox.infrastructure.large_work import MAX_REST_SECONDS, Turns, compute


async def _hold(turns: Turns, merchant_id: str, taken: list[str], gate: asyncio.Event) -> None:
    async with turns.place(merchant_id):
        taken.append(merchant_id)
        await gate.wait()


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_merchants_take_turns_and_each_has_one_place_at_most() -> None:
    turns, taken, gate = Turns(2), list[str](), asyncio.Event()
    order = ["busy", "busy", "busy", "other", "quiet"]
    tasks = [asyncio.create_task(_hold(turns, merchant_id, taken, gate)) for merchant_id in order]
    await _settle()
    assert taken == ["busy", "other"]
    gate.set()
    await asyncio.gather(*tasks)
    # The quiet merchant came last, but had its turn before the busy one's third.
    assert taken[2:] in (["busy", "quiet", "busy"], ["quiet", "busy", "busy"])


async def test_a_merchants_waiting_requests_are_bounded_and_others_may_still_wait() -> None:
    turns, taken, gate = Turns(1, max_waiting=2), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(_hold(turns, "busy", taken, gate)) for _ in range(3)]
    await _settle()
    with pytest.raises(Problem) as refused:
        await _hold(turns, "busy", taken, gate)
    assert (refused.value.code, refused.value.headers["Retry-After"]) == ("RATE_LIMITED", "1")
    tasks.append(asyncio.create_task(_hold(turns, "quiet", taken, gate)))
    await _settle()
    gate.set()
    await asyncio.gather(*tasks)
    assert sorted(taken) == ["busy", "busy", "busy", "quiet"]


async def test_cancelled_requests_lose_no_place() -> None:
    turns, taken, gate = Turns(1), list[str](), asyncio.Event()
    first, waiting, last = (asyncio.create_task(_hold(turns, name, taken, gate)) for name in ("a", "b", "c"))
    await _settle()
    waiting.cancel()
    first.cancel()
    await _settle()
    assert taken == ["a", "c"]
    # Cancelled in the moment in which its turn comes.
    late = asyncio.create_task(_hold(turns, "d", taken, gate))
    await _settle()
    last.cancel()
    late.cancel()
    await _settle()
    gate.set()
    await _hold(turns, "e", taken, gate)
    assert taken[-1] == "e"


async def test_large_work_runs_beside_the_event_loop() -> None:
    may_end = threading.Event()
    loop_thread = threading.get_ident()

    def work() -> int:
        assert may_end.wait(30)  # the event loop must run meanwhile, or this never ends
        return threading.get_ident()

    task = asyncio.create_task(compute("m", work, is_large=True))
    await _settle()
    may_end.set()
    assert await task != loop_thread
    assert await compute("m", threading.get_ident, is_large=False) == loop_thread


async def test_the_thread_rests_while_several_merchants_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise calls that never let the event loop run follow each other, and small requests wait for all of them."""
    resting, end = asyncio.Event(), asyncio.Event()

    async def rest(seconds: float) -> None:
        assert 0 < seconds <= MAX_REST_SECONDS
        resting.set()
        await end.wait()

    monkeypatch.setattr(large_work, "sleep", rest)
    assert await compute("a", lambda: "alone", is_large=True) == "alone"  # nobody waits, so it does not rest
    assert not resting.is_set()
    done = list[str]()
    works = [asyncio.create_task(compute(name, partial(done.append, name), is_large=True)) for name in ("a", "b")]
    await resting.wait()
    await _settle()
    assert done == ["a"]
    end.set()
    await asyncio.gather(*works)
    assert done == ["a", "b"]


async def test_clients_that_are_refused_wait_for_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a client that retries immediately uses all CPU with refusals."""
    waits = list[float]()

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(middleware, "sleep", wait)
    for code, waited in (("RATE_LIMITED", [REFUSAL_SECONDS]), ("NOT_FOUND", list[float]())):

        async def refuse(_: Request, code: str = code) -> None:
            raise Problem(code)

        waits.clear()
        with pytest.raises(Problem, match=code):
            await slow_refusals(cast("Operation", None), refuse)(cast("Request", None))
        assert waits == waited
