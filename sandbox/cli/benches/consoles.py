"""`psp bench consoles`: measure what open consoles cost the API, and how soon they show what was committed."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import uvloop

from sandbox.cli.benches.cpu import CpuMeter
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.machine import Machine, describe_machine
from sandbox.cli.benches.pacer import Pacer
from sandbox.cli.benches.result import COUNT, OTHER, RATIO, SHORTFALL, Figure, Progress, Result, latency_figures
from sandbox.cli.benches.stack import BenchError, Merchant, Stack, create_merchant

_PAYOUT: Final = re.compile(rb"/payouts/([0-9a-f-]{36})")
_TOKEN: Final = re.compile(r'name="_csrf" value="([^"]+)"')
_SESSION: Final = re.compile(r'data-session="([^"]+)"')
_MAX_MESSAGE: Final = 4 * 2**20
_WAIT_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Seen:
    """What all consoles have been sent: when each payout came first, by its id, and how much it was."""

    payouts: dict[str, float] = field(default_factory=dict)
    messages: int = 0
    size: int = 0

    def read(self, line: bytes) -> None:
        """Note a line of a stream."""
        self.size += len(line)
        if line.startswith(b"data:"):
            self.messages += 1
            now = time.perf_counter()
            for found in _PAYOUT.findall(line):
                self.payouts.setdefault(found.decode(), now)


@dataclass(frozen=True, slots=True)
class ConsolesBench:
    """The options of the bench: `rate` creates per second for `seconds`, without and with `consoles` open, `rounds` times."""

    stack: Stack
    consoles: int
    page: str
    rate: int
    seconds: int
    rounds: int
    merchants: int
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if anything fails. Payouts that no console showed are part of the result."""
        self.progress.expect(2 * self.rounds * self.seconds)
        return uvloop.run(self._measure(describe_machine(Database(self.stack.database_url).version)))

    async def _measure(self, machine: Machine) -> Result:
        merchants = [await asyncio.to_thread(create_merchant, self.stack, "bench consoles") for _ in range(self.merchants)]
        await self._create(merchants, 1)
        alone: list[float] = []
        watched: list[float] = []
        latencies: list[float] = []
        seen, missing = _Seen(), 0
        for number in range(1, self.rounds + 1):
            self.progress(f"round {number}: nobody looks")
            _, cpu = await self._create(merchants, self.seconds)
            alone.append(cpu / self.seconds)
            self.progress(f"round {number}: {self.consoles} consoles")
            async with self._looking(merchants, seen):
                sent, cpu = await self._create(merchants, self.seconds)
                watched.append(cpu / self.seconds)
                deadline = time.perf_counter() + _WAIT_SECONDS
                while not sent.keys() <= seen.payouts.keys() and time.perf_counter() < deadline:  # noqa: ASYNC110 -- as in e2e
                    await asyncio.sleep(0.02)
            latencies += [seen.payouts[payout] - at for payout, at in sent.items() if payout in seen.payouts]
            missing += len(sent.keys() - seen.payouts.keys())
        pairs = list(zip(alone, watched, strict=True))
        return Result(
            machine=machine,
            figures=[
                Figure("api_cpu_percent/without", [100 * share for share in alone], OTHER),
                Figure("api_cpu_percent/with", [100 * share for share in watched], OTHER),
                Figure("api_cpu_percent/consoles", [100 * (after - before) for before, after in pairs], OTHER),
                Figure("cpu_ratio/api", [after / before for before, after in pairs], RATIO),
                *latency_figures(latencies),
                Figure("not_shown", [missing], SHORTFALL),
                Figure("messages", [seen.messages], COUNT),
                Figure("kilobytes", [seen.size // 1000], COUNT),
            ],
            notes=[
                "The percentiles are from the response to a create until a console has the payout's row.",
                "A page has 25 rows, so at a high rate some payouts are never shown.",
            ],
        )

    async def _create(self, merchants: Sequence[Merchant], seconds: int) -> tuple[dict[str, float], float]:
        """Create payouts. Return when each was answered, by its id, and the seconds of CPU of the API."""
        answered: dict[str, float] = {}

        def note(payout_id: str) -> None:
            answered[payout_id] = time.perf_counter()

        pacer = Pacer(self.stack, merchants, 8, note)
        ticker = asyncio.create_task(self.progress.tick("creating", seconds))
        try:
            await pacer.open()
            with CpuMeter(self.stack.pid) as cpu:
                await pacer.run(self.rate, seconds)
                await pacer.wait_for_responses(_WAIT_SECONDS)
        finally:
            ticker.cancel()
            await pacer.close()
        pacer.sent.check()
        if "api" not in cpu.seconds:
            raise BenchError("The sandbox's processes are not visible, so their CPU time cannot be measured.")
        return answered, cpu.seconds["api"]

    @asynccontextmanager
    async def _looking(self, merchants: Sequence[Merchant], seen: _Seen) -> AsyncIterator[None]:
        """Keep the consoles open during the block, each in a session of its own, spread over the merchants."""
        async with AsyncExitStack() as closing:
            tasks = []
            for number in range(self.consoles):
                jar = aiohttp.CookieJar(unsafe=True)  # keeps cookies of an address without a name
                session = aiohttp.ClientSession(self.stack.api_url, cookie_jar=jar, read_bufsize=_MAX_MESSAGE)
                http = await closing.enter_async_context(session)
                opened = await closing.enter_async_context(await self._open(http, merchants[number % len(merchants)]))
                first = asyncio.Event()
                tasks.append(asyncio.create_task(_read(opened, seen, first)))
                await asyncio.wait_for(first.wait(), _WAIT_SECONDS)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _open(self, http: aiohttp.ClientSession, merchant: Merchant) -> aiohttp.ClientResponse:
        """Sign in, open the page, and return the stream of its updates."""
        token = _found(_TOKEN, await (await http.get("/console/sign-in")).text())
        form = {"_csrf": token, "api_key": merchant.api_key}
        await (await http.post("/console/sign-in", data=form, headers={"Origin": self.stack.api_url})).read()
        home = f"/console/m/{merchant.merchant_id}"
        session = _found(_SESSION, await (await http.get(home + self.page)).text())
        timeout = aiohttp.ClientTimeout(total=None)
        return await http.get(f"{home}/live", params={"session": session, "page": home + self.page}, timeout=timeout)


async def _read(stream: aiohttp.ClientResponse, seen: _Seen, first: asyncio.Event) -> None:
    async for line in stream.content:
        seen.read(line)
        if line.startswith(b"data:"):
            first.set()


def _found(pattern: re.Pattern[str], html: str) -> str:
    found = pattern.search(html)
    if found is None:
        raise BenchError("The console does not answer as expected.")
    return found[1]
