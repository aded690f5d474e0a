"""`psp bench summary` and `psp bench bulk-credit`: measure cached reads against creates, and credits from a CSV file."""

import json
import secrets
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from sandbox.bench.create import medians
from sandbox.bench.database import Database
from sandbox.bench.machine import Machine, describe_machine
from sandbox.bench.stack import BenchError, Merchant, Stack, call, check_audit, create_merchant
from sandbox.bench.wrk import find_wrk, run_wrk

_USERS_PER_REQUEST = 1000
_WAIT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class SummaryResult:
    """The result of the summary bench. `reads` and `creates` are the rates of each round, per second."""

    machine: Machine
    reads: Sequence[float]
    creates: Sequence[float]
    cpu_us: Mapping[str, float]
    """CPU microseconds per payout created, by kind of process."""
    cpu_us_of_reads: Mapping[str, float]
    """CPU microseconds per summary read."""

    @property
    def ratio(self) -> float:
        """Summaries read per payout created."""
        return median(self.reads) / median(self.creates)


@dataclass(frozen=True, slots=True)
class BulkCreditResult:
    """The result of the bulk credit bench."""

    machine: Machine
    rows: int
    upload_seconds: float
    """Time from the start of the upload to its response."""
    seconds: float
    """Time from the first byte of the upload to the commit of the last row, as a client sees it."""
    cpu_us: Mapping[str, float]
    """CPU microseconds per row, by kind of process."""


@dataclass(frozen=True, slots=True)
class SummaryBench:
    """The options of the bench: reads and creates alternately, `seconds` each, `rounds` times."""

    stack: Stack
    seconds: int
    rounds: int
    connections: int
    progress: Callable[[str, int], None] = field(default=lambda what, done: None)

    @property
    def steps(self) -> int:
        """The total number of steps that `progress` counts."""
        return 2 * self.rounds * self.seconds

    def run(self) -> SummaryResult:
        """Measure. Raises BenchError if anything fails."""
        find_wrk()
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        merchant = create_merchant(self.stack, "bench summary")
        user_id = create_users(self.stack, merchant, 1)[0]
        path = f"/api/v1/users/{user_id}/summary"
        reads, creates, read_cpu, create_cpu = [], [], [], []
        for number in range(1, self.rounds + 1):
            self.progress(f"round {number}: summaries", 0)
            with self.stack.cpu() as cpu:
                read = run_wrk(self.stack, [merchant], self.connections, self.seconds, "reads.lua", [path])
            reads.append(read.rps)
            read_cpu.append(cpu.micros_per(read.requests))
            self.progress(f"round {number}: creates", self.seconds)
            before = database.count_payouts([merchant])
            with self.stack.cpu() as cpu:
                creates.append(run_wrk(self.stack, [merchant], self.connections, self.seconds).rps)
                database.drain([merchant])
            create_cpu.append(cpu.micros_per(database.count_payouts([merchant]) - before))
            self.progress(f"round {number}: creates", self.seconds)
        check_audit(self.stack, merchant)
        return SummaryResult(machine, reads, creates, medians(create_cpu), medians(read_cpu))


@dataclass(frozen=True, slots=True)
class BulkCreditBench:
    """The options of the bench: one file of `rows` rows, each for a different user. The users are created in advance."""

    stack: Stack
    rows: int
    progress: Callable[[str, int], None] = field(default=lambda what, done: None)

    @property
    def steps(self) -> int:
        """The total number of steps that `progress` counts."""
        return 2 * self.rows

    def run(self) -> BulkCreditResult:
        """Measure. Raises BenchError if a row is not credited or anything else fails."""
        machine = describe_machine(Database(self.stack.database_url).version)
        merchant = create_merchant(self.stack, "bench bulk-credit")
        users = create_users(self.stack, merchant, self.rows, lambda count: self.progress("creating users", count))
        content = b"uuid,amount\n" + b"".join(f"{user},{number}.50\n".encode() for number, user in enumerate(users, 1))
        with self.stack.cpu() as cpu:
            started = time.perf_counter()
            activity_id = _upload(self.stack, merchant, content)
            uploaded = time.perf_counter()
            done = 0
            while True:
                activity = call(
                    self.stack, "GET", f"/api/v1/wallet/bulk-credit/{activity_id}", {"X-API-KEY": merchant.api_key}, None
                )
                self.progress("crediting", activity["succeeded"] - done)
                done = activity["succeeded"]
                if activity["status"] not in ("UPLOADED", "PROCESSING"):
                    break
                if time.perf_counter() - started > _WAIT_SECONDS:
                    raise BenchError(f"After an hour only {done} of {self.rows} rows were credited.")
                time.sleep(0.05)
            ended = time.perf_counter()
        if done != self.rows:
            raise BenchError(f"Only {done} of {self.rows} rows were credited: {json.dumps(activity)}")
        check_audit(self.stack, merchant)
        return BulkCreditResult(machine, self.rows, uploaded - started, ended - started, cpu.micros_per(self.rows))


def create_users(
    stack: Stack, merchant: Merchant, total: int, progress: Callable[[int], None] = lambda count: None
) -> list[str]:
    """Create users, and return their ids. Raises BenchError."""
    ids: list[str] = []
    while len(ids) < total:
        users = [{"name": f"User {number}"} for number in range(len(ids), min(len(ids) + _USERS_PER_REQUEST, total))]
        headers = {"X-API-KEY": merchant.api_key, "X-IDEMPOTENCY-KEY": secrets.token_hex(8)}
        results = call(stack, "POST", "/api/v1/users/batch", headers, {"users": users})["results"]
        ids += [result["user"]["id"] for result in results]
        progress(len(users))
    return ids


def _upload(stack: Stack, merchant: Merchant, content: bytes) -> str:
    boundary = secrets.token_hex(16)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="credits.csv"\r\n\r\n'.encode()
    request = urllib.request.Request(  # noqa: S310 (our own API)
        f"{stack.api_url}/api/v1/wallet/bulk-credit",
        head + content + f"\r\n--{boundary}--\r\n".encode(),
        {
            "X-API-KEY": merchant.api_key,
            "X-IDEMPOTENCY-KEY": secrets.token_hex(8),
            "Content-Type": f"multipart/form-data; boundary={boundary}",
        },
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as response:  # noqa: S310 (as above)
            activity_id: str = json.loads(response.read())["activity_id"]
            return activity_id
    except OSError as error:
        raise BenchError(f"The upload failed: {error}") from error
