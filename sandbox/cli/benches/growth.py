"""`psp bench growth`: compare the cost of a payout in a sandbox with much data and in one without it.

Both sandboxes run this code on this machine, and are measured alternately.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from sandbox.cli.benches.cpu import TOTAL
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.load import CreateLoad, LoadRun, open_load
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.preload import preload
from sandbox.cli.benches.result import RATIO, Figure, Progress, Result, cpu_figures
from sandbox.cli.benches.stack import BenchError, Stack, open_stack, payout_body, post
from sandbox.worlds.merchants.tables import TABLES

if TYPE_CHECKING:
    from sandbox.cli.benches.database import Connection

Case = Literal["age", "neighbors", "payouts"]
DEFAULT_PAYOUTS: Final[Mapping[Case, int]] = {"age": 120_000, "neighbors": 300_000, "payouts": 1_000_000}
_AGING_SECONDS: Final = 10
_MERCHANTS_PER_TRANSACTION: Final = 5_000


def parse_case(text: str) -> Case:
    """Parse a case. Raises ValueError."""
    for case in DEFAULT_PAYOUTS:
        if text == case:
            return case
    raise ValueError(f"{text!r} is not a case. Choose from: {', '.join(DEFAULT_PAYOUTS)}.")


@dataclass(frozen=True, slots=True)
class GrowthBench:
    """The options of the bench.

    Each case compares two sandboxes. `age`: one that has created `payouts` payouts, and a fresh one for each round.
    `neighbors`: a large merchant, with `payouts` stored payouts, next to `merchants` small ones, and the same large merchant
    alone. `payouts`: a merchant with `payouts` stored payouts, and a merchant with none. If `payouts` is None,
    the case's default is used.
    """

    case: Case
    payouts: int | None
    merchants: int
    webhooks: int
    seconds: int
    rounds: int
    connections: int
    progress: Progress = field(default_factory=Progress)

    @property
    def _count(self) -> int:
        return self.payouts or DEFAULT_PAYOUTS[self.case]

    def run(self) -> Result:
        """Measure. Raises BenchError if anything fails."""
        stored = 2 * self._count + self.merchants if self.case == "neighbors" else self._count
        self.progress.expect(stored + 2 * self.rounds)
        without: list[LoadRun] = []
        grown: list[LoadRun] = []
        with ExitStack() as closing:
            large = closing.enter_context(self._open(self._fill))
            machine = describe_machine(large.database.version)
            if self.case != "age":
                small = closing.enter_context(self._open(self._fill_both))
            for number in range(1, self.rounds + 1):
                self.progress(f"round {number}: without the data", 1)
                if self.case == "age":
                    with self._open() as fresh:
                        without.append(fresh.run(self.seconds))
                else:
                    without.append(small.run(self.seconds))
                self.progress(f"round {number}: with the data", 1)
                grown.append(large.run(self.seconds))
            self.progress("auditing")
            large.check()
        if not all(run.cpu_us for run in (*without, *grown)):
            raise BenchError("The sandbox's processes are not visible, so their CPU time cannot be measured.")
        return Result(
            machine=machine,
            figures=growth_figures(without, grown),
            data={"case": self.case},
            notes=["A ratio is the figure with the data, divided by the one without it."],
        )

    @contextmanager
    def _open(self, fill: Callable[[CreateLoad], None] = lambda load: None) -> Iterator[CreateLoad]:
        with open_stack(None, 1, 1) as stack, open_load(stack, "bench growth", self.connections, 1, self.webhooks) as load:
            fill(load)
            yield load

    def _fill_both(self, load: CreateLoad) -> None:
        """Store the data that both sandboxes have, then warm up."""
        if self.case == "neighbors":
            preload(load.database, load.merchants[0], self._count, lambda count: self.progress("storing payouts", count))
        load.warm_up()

    def _fill(self, load: CreateLoad) -> None:
        """Store the data of the grown sandbox."""
        if self.case == "age":
            created = 0
            while created < self._count:
                run = load.run(_AGING_SECONDS)
                load.received.ids.clear()  # a million ids would need hundreds of megabytes
                load.received.arrived.clear()
                created += run.created
                self.progress(f"{created} payouts created", run.created)
            return
        if self.case == "payouts":
            preload(load.database, load.merchants[0], self._count, lambda count: self.progress("storing payouts", count))
        else:
            store_merchants(load.stack, load.database, self.merchants, lambda count: self.progress("storing merchants", count))
        self._fill_both(load)


def growth_figures(without: Sequence[LoadRun], grown: Sequence[LoadRun]) -> list[Figure]:
    """Return the ratios of all rounds, and the CPU time per payout in each sandbox."""
    pairs = list(zip(without, grown, strict=True))
    ratios = {kind: [grown.cpu_us[kind] / without.cpu_us[kind] for without, grown in pairs] for kind in ("postgres", TOTAL)}
    cpu = [
        replace(figure, name=f"{data}/{figure.name}")
        for data, runs in (("without_data", without), ("with_data", grown))
        for figure in cpu_figures("payout", [run.cpu_us for run in runs])
    ]
    return [
        *(Figure(f"cpu_ratio/{kind}", of_kind, RATIO) for kind, of_kind in ratios.items()),
        Figure("rps_ratio", [grown.http_rps / without.http_rps for without, grown in pairs], RATIO),
        *cpu,
    ]


def store_merchants(stack: Stack, database: Database, count: int, on_stored: Callable[[int], None]) -> None:
    """Store `count` merchants, each with one settled payout whose webhooks were delivered. Raises BenchError.

    The first is created over HTTP; the others are copies of its rows. They have no API keys.
    """
    with open_load(stack, "bench growth: small merchant", 1, 1, 1) as load:
        (merchant,) = load.merchants
        post(stack, merchant, "/api/v1/payouts", payout_body("small"))
        database.drain([merchant])
        database.wait_for_attempts(merchant)

    async def work(conn: "Connection") -> None:
        # The copied rows satisfy all foreign keys. Checking them would double the time.
        await conn.execute("SET session_replication_role = replica")
        columns = {
            table: [name for (name,) in await conn.fetch(_COLUMNS, table)] for table in reversed(TABLES) if table != "api_keys"
        }
        for first in range(0, count, _MERCHANTS_PER_TRANSACTION):
            size = min(_MERCHANTS_PER_TRANSACTION, count - first)
            async with conn.transaction():
                await conn.execute(_NEW_MERCHANTS.format(size=size))
                for table, names in columns.items():
                    await conn.execute(_COPY.format(table=table, columns=", ".join(names)), merchant.merchant_id)
            on_stored(size)

    database.with_connection(work)
    database.execute("VACUUM (ANALYZE)")


_COLUMNS: Final = """
SELECT quote_ident(attname) FROM pg_attribute
WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attname <> 'merchant_id'
"""
_NEW_MERCHANTS: Final = """
CREATE TEMP TABLE new_merchants ON COMMIT DROP AS SELECT gen_random_uuid() AS new_id FROM generate_series(1, {size})
"""
_COPY: Final = """
INSERT INTO {table} (merchant_id, {columns})
SELECT new_id, {columns} FROM new_merchants CROSS JOIN {table} WHERE merchant_id = $1
"""
