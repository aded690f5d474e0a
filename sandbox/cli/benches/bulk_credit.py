"""`psp bench bulk-credit`: measure the credits of many wallets from one CSV file."""

import json
import secrets
import time
from dataclasses import dataclass, field

from sandbox.cli.benches.database import Database
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.result import COUNT, RATE, SECONDS, Figure, Progress, Result, cpu_figures
from sandbox.cli.benches.stack import BenchError, Merchant, Stack, call, check_audit, create_merchant, create_users

_WAIT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class BulkCreditBench:
    """The options of the bench: one file of `rows` rows, each for a different user. The users are created in advance."""

    stack: Stack
    rows: int
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if a row is not credited or anything else fails."""
        self.progress.expect(2 * self.rows)
        machine = describe_machine(Database(self.stack.database_url).version)
        merchant = create_merchant(self.stack, "bench bulk-credit")
        users = create_users(self.stack, merchant, self.rows, lambda count: self.progress("creating users", count))
        content = b"uuid,amount\n" + b"".join(f"{user},{number}.50\n".encode() for number, user in enumerate(users, 1))
        with self.stack.cpu() as cpu:
            started = time.perf_counter()
            activity_id = _upload(self.stack, merchant, content)
            uploaded = time.perf_counter()
            done = 0
            path, key = f"/api/v1/wallet/bulk-credit/{activity_id}", {"X-API-KEY": merchant.api_key}
            while True:
                activity = call(self.stack, "GET", path, key, None)
                self.progress("crediting", activity["succeeded"] - done)
                done = activity["succeeded"]
                if activity["status"] not in ("UPLOADED", "PROCESSING"):
                    break
                if time.perf_counter() - started > _WAIT_SECONDS:
                    raise BenchError(f"After an hour only {done} of {self.rows} rows were credited.")
                time.sleep(0.05)
            seconds = time.perf_counter() - started
        if done != self.rows:
            raise BenchError(f"Only {done} of {self.rows} rows were credited: {json.dumps(activity)}")
        check_audit(self.stack, merchant)
        figures = [
            Figure("rows", [self.rows], COUNT),
            Figure("upload_seconds", [uploaded - started], SECONDS),
            Figure("seconds", [seconds], SECONDS),
            Figure("rows_per_second", [self.rows / seconds], RATE),
        ]
        return Result(
            machine=machine,
            figures=figures + cpu_figures("row", [cpu.micros_per(self.rows)]),
            notes=["`seconds` begin with the upload, and end when a client sees the last credit. Each row is credited once, "
                   "and the audit is clean."],
        )  # fmt: skip


def _upload(stack: Stack, merchant: Merchant, content: bytes) -> str:
    boundary = secrets.token_hex(16)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="credits.csv"\r\n\r\n'.encode()
    headers = {
        "X-API-KEY": merchant.api_key,
        "X-IDEMPOTENCY-KEY": secrets.token_hex(8),
        "Content-Type": f"multipart/form-data; boundary={boundary}",
    }
    body = head + content + f"\r\n--{boundary}--\r\n".encode()
    return str(call(stack, "POST", "/api/v1/wallet/bulk-credit", headers, body)["activity_id"])
