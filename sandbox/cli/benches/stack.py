"""The measured sandbox: a fresh one, started with `psp up --ephemeral`, or one that is already running."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from sandbox.cli.benches.cpu import CpuMeter, find_supervisor

_START_SECONDS = 300.0
_STOP_SECONDS = 60.0
_MAX_SECONDS = 1800.0
"""The time limit of one API call. The audit of a million payouts takes minutes."""
OPENING_BALANCE = "99999999999.00"
_BATCH = 1000
"""Payouts or users of one request."""
_MISSING_MODULE = re.compile(r"^ModuleNotFoundError: No module named '([^']+)'", re.MULTILINE)


class BenchError(Exception):
    """A benchmark failed, or its figures are not valid. The message is for the user."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The sandbox's URLs and keys."""

    api_url: str
    admin_key: str
    database_url: str
    pid: int | None = None
    """The supervisor's pid; None if it is not on this machine or not visible."""
    source: Path | None = None
    """The directory with the code that it runs, if the bench chose one."""

    def cpu(self) -> CpuMeter:
        """Return a meter for the CPU time of the sandbox's processes, to use in a `with` block."""
        return CpuMeter(self.pid)


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant that was created for one measurement."""

    merchant_id: str
    api_key: str


@contextlib.contextmanager
def open_stack(ready_file: Path | None, api_processes: int, workers: int, source: Path | None = None) -> Iterator[Stack]:
    """Open the sandbox that `ready_file` describes, or start a fresh one and stop it afterwards. Raises BenchError.

    With `source`, the fresh sandbox runs the code in that directory. It uses its own stores, even if DATABASE_URL and REDIS_URL
    are set.
    """
    if ready_file is not None:
        stack = _read(ready_file)
        yield replace(stack, pid=find_supervisor(urlsplit(stack.api_url).port or 80))
        return
    options = ["--ephemeral", "--no-seed", "--api-processes", str(api_processes), "--workers", str(workers)]
    with run_sandbox(options, source) as stack:
        yield stack


@contextlib.contextmanager
def run_sandbox(
    options: Sequence[str], source: Path | None, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Stack]:
    """Start a sandbox with these options of `psp up`, and stop it afterwards. Raises BenchError.

    With `source`, it runs the code in that directory, on its own stores even if the environment has URLs. `settings` are added
    to the environment.
    """
    # An installed package has its bytecode. Without it, compiling the sources would be a third of a start.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if source is not None:
        env = {name: value for name, value in env.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        # PYTHONPATH takes precedence over installed packages, which may contain this code.
        env["PYTHONPATH"] = str(source)
    env |= settings
    with tempfile.TemporaryDirectory(prefix="psp-bench-") as folder:
        ready, log = Path(folder) / "ready.json", Path(folder) / "up.log"
        argv = [sys.executable, "-P", "-m", "sandbox.cli.main", "up", "--port", "0", "--ipn-port", "0", *options]
        argv += ["--ready-file", str(ready)]
        with log.open("wb") as output, exit_on_sigterm():
            process = subprocess.Popen(  # noqa: S603 (our own command)
                argv,
                stdin=subprocess.DEVNULL,
                cwd=source,
                env=env,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only this process, which then stops the sandbox in order
            )
            try:
                _await_ready(process, ready, log)
                yield replace(_read(ready), pid=process.pid, source=source)
            finally:
                _stop(process)


def _await_ready(process: "subprocess.Popen[bytes]", ready: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            text = log.read_text("utf-8", "replace")
            missing = _MISSING_MODULE.search(text)
            if missing is not None:
                raise BenchError(
                    f"The sandbox did not start: the package {missing[1]} is missing. Install the requirements.txt of the "
                    "measured revision in this Python environment."
                )
            raise BenchError(f"The sandbox did not start:\n{text[-3000:]}")
        time.sleep(0.01)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # its reaper ends the other processes
            process.wait()


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM. Otherwise Python would end immediately, and leave the sandbox running."""

    def exit_process(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, exit_process)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _read(ready_file: Path) -> Stack:
    try:
        ready = json.loads(ready_file.read_text("utf-8"))
        return Stack(ready["api_url"], ready["admin_key"], ready["database_url"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{ready_file} is not a ready file of `psp up` ({error}).") from error


def create_merchant(stack: Stack, name: str) -> Merchant:
    """Create a merchant with a balance that no measurement uses up. Raises BenchError."""
    body = {"name": name, "opening_balance": OPENING_BALANCE}
    created = call(stack, "POST", "/sandbox/v1/merchants", {"X-ADMIN-KEY": stack.admin_key}, body)
    return Merchant(created["merchant_id"], created["api_key"])


def create_endpoint(stack: Stack, merchant: Merchant, url: str) -> str:
    """Create a webhook endpoint for all events of the merchant, and return its secret. Raises BenchError."""
    headers = {"X-API-KEY": merchant.api_key, "X-IDEMPOTENCY-KEY": url}
    secret: str = call(stack, "POST", "/api/v1/webhook-endpoints", headers, {"url": url})["secret"]
    return secret


def delete_merchant(stack: Stack, merchant: Merchant) -> None:
    """Delete a merchant with all its data. Raises BenchError."""
    call(stack, "DELETE", f"/sandbox/v1/merchants/{merchant.merchant_id}", {"X-ADMIN-KEY": stack.admin_key}, None)


def payout_body(reference: str | None = None, account_number: str = "12345678900001") -> dict[str, Any]:
    """Return the body of a create. By default, the payout is paid and its reference is random."""
    return {
        "merchant_reference": reference or secrets.token_hex(12),
        "amount": "1.00",
        "dest_type": "BANK",
        "bank_code": "HBL",
        "account_number": account_number,
        "account_title": "AYESHA KHAN",
    }


def create_payouts(
    stack: Stack, merchant: Merchant, count: int, account_number: str = "12345678900001", batch: int = _BATCH
) -> list[str]:
    """Create payouts in batches, and return their ids. Raises BenchError."""
    ids: list[str] = []
    for start in range(0, count, batch):
        payouts = [payout_body(account_number=account_number) for _ in range(min(batch, count - start))]
        results = post(stack, merchant, "/api/v1/payouts/batch", {"payouts": payouts})["results"]
        if any(result["status"] != 201 for result in results):
            raise BenchError(f"Not all payouts were created: {json.dumps(results)[:500]}")
        ids += [result["payout"]["id"] for result in results]
    return ids


def create_users(
    stack: Stack, merchant: Merchant, total: int, on_created: Callable[[int], None] = lambda count: None
) -> list[str]:
    """Create users, and return their ids. Calls `on_created` with the size of each batch. Raises BenchError."""
    ids: list[str] = []
    while len(ids) < total:
        users = [{"name": f"User {number}"} for number in range(len(ids), min(len(ids) + _BATCH, total))]
        ids += [result["user"]["id"] for result in post(stack, merchant, "/api/v1/users/batch", {"users": users})["results"]]
        on_created(len(users))
    return ids


def check_audit(stack: Stack, merchant: Merchant) -> None:
    """Audit the merchant's ledger. Raises BenchError if a check fails, because then no figure is valid."""
    report = call(stack, "GET", "/sandbox/v1/audit", {"X-API-KEY": merchant.api_key}, None)
    if report.get("ok") is not True:
        raise BenchError(f"The audit of the ledger failed: {json.dumps(report)[:2000]}")


def post(stack: Stack, merchant: Merchant, path: str, body: object) -> Any:
    """Post a body for a merchant with a new idempotency key, and return the response's JSON. Raises BenchError."""
    return call(stack, "POST", path, {"X-API-KEY": merchant.api_key, "X-IDEMPOTENCY-KEY": secrets.token_hex(8)}, body)


def call(stack: Stack, method: str, path: str, headers: dict[str, str], body: object) -> Any:
    """Call the API, and return the response's JSON. Bytes are sent as they are. Raises BenchError unless the status is 2xx."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = headers if body is None else {"Content-Type": "application/json"} | headers
    request = urllib.request.Request(stack.api_url + path, data, headers, method=method)  # noqa: S310 (our own API)
    try:
        with urllib.request.urlopen(request, timeout=_MAX_SECONDS) as response:  # noqa: S310 (our own sandbox)
            content = response.read()
            return json.loads(content) if content else None
    except urllib.error.HTTPError as error:
        detail = error.read(2000).decode("utf-8", "replace")
        raise BenchError(f"The response to {method} {path} is {error.code}: {detail}") from error
    except OSError as error:
        raise BenchError(f"The sandbox at {stack.api_url} is unreachable: {error}") from error
