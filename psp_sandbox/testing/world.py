"""A test's own merchant: its payouts, clock, webhooks, faults and applications."""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

from psp_sandbox.client import AsyncClient, Client
from psp_sandbox.client.models import ClockRun, Drained, ExamplePayout, Payout
from psp_sandbox.testing.apps import Apps
from psp_sandbox.testing.connections import send, short_lived
from psp_sandbox.testing.faults import SPOILING_KINDS, Fault, fault_body
from psp_sandbox.testing.live_app import Interface, LiveApp
from psp_sandbox.testing.live_process import START_SECONDS, LiveProcess
from psp_sandbox.testing.options import Options, UsageError, read_amount, read_time, wire_time
from psp_sandbox.testing.process_clock import ProcessClock
from psp_sandbox.testing.recording import Recording
from psp_sandbox.testing.results import Balance, seconds_of
from psp_sandbox.testing.safepay import Safepay
from psp_sandbox.testing.sandbox import USER_AGENT, Sandbox
from psp_sandbox.testing.webhooks import Inbox, Webhooks, payout_id_of

if TYPE_CHECKING:
    import httpx

_FIRST_PAUSE_SECONDS: Final = 0.02
_MAX_PAUSE_SECONDS: Final = 0.2
"""Each pause is longer than the last: every look is a call in the journal."""
_LIST_LIMIT: Final = 100


class World:
    """A merchant that only this test uses: the fixture `psp`.

    `url`, `api_key`, `webhook_secret` and `ipn_secret` are what an application needs to use it; `merchant_id` is its id.
    `webhook_secret` is that of the plugin's own endpoint: `live_app` or `forward_webhooks` lead its webhooks to an application.
    """

    def __init__(self, sandbox: Sandbox, options: Options) -> None:
        self._sandbox = sandbox
        self._options = options
        self._inbox = Inbox()
        self.recording = Recording()
        """What the test has done with its application so far."""
        self._seen: set[str] = set()
        self._cleanups = contextlib.ExitStack()
        self._frozen = options.frozen
        self.faults: list[Fault] = []
        """The faults of this test that have ended."""
        self.allow_failed_deliveries = options.allow_failed_deliveries
        """Whether the test may end with deliveries that have failed. Set it to True in a test that expects that."""
        self.allow_unhit_faults = options.allow_unhit_faults
        """Whether the test may end with faults that never took effect."""
        self._own_url, self._mailbox = sandbox.receiver.open(self._inbox)
        created = sandbox.create_merchant({**options.body(), "webhook_url": self._own_url})
        self.url = sandbox.url
        self.merchant_id = created.merchant_id
        self.api_key = created.api_key
        self.webhook_secret = created.webhook_secret
        self.ipn_secret = created.ipn_secret
        sandbox.recordings[self.api_key] = self.recording
        self._client: Client | None = None
        self._mailbox.secret = self.webhook_secret
        self._apps = Apps(self, self._own_url, self._mailbox)
        self._cleanups.callback(self._apps.close)

    @property
    def name(self) -> str:
        """The merchant's name; by default the test's id."""
        return self._options.name

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that an application needs: PSP_URL, PSP_API_KEY and PSP_WEBHOOK_SECRET."""
        return {"PSP_URL": self.url, "PSP_API_KEY": self.api_key, "PSP_WEBHOOK_SECRET": self.webhook_secret}

    @property
    def client(self) -> Client:
        """A typed client with the merchant's key. It shares the connections of all tests."""
        if self._client is None:
            self._client = self._sandbox.client.with_key(self.api_key)
        return self._client

    def use_client(self, client: Client) -> None:
        """Let the test's own calls have another key of the merchant, so that they differ from the application's."""
        self._client = client

    @cached_property
    def async_client(self) -> AsyncClient:
        """A typed client for async tests. It keeps no connection open, so nothing has to be closed."""
        return short_lived(self.url, self.client._caller.address.keys["merchant"] or "", USER_AGENT)

    def request(self, method: str, path: str, json: Any = None, **options: Any) -> "httpx.Response":
        """Send a request that the client has no method for, with the merchant's key, and return the response.

        `options` are those of httpx. Raises ProblemError unless the response is a success.
        """
        return send(self.client, method, path, json, **options)

    # Payouts and money.

    def pays(
        self,
        scenario: str = "success",
        *,
        amount: Any = None,
        reference: str | None = None,
        metadata: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Payout:
        """Create a payout that follows a scenario, and return it.

        `scenario` is a name of the catalogue or of the merchant's own scenarios. By default, amount and destination are the
        catalogue's example. `fields` are further fields of the payout. Raises UsageError if there is no such scenario, and
        ProblemError if the payout is refused, such as InsufficientBalance.
        """
        __tracebackhide__ = True
        entry = self._sandbox.scenario(scenario, self.client)
        example = entry.example
        return self._see(
            self.client.payouts.create(
                merchant_reference=reference or f"{scenario}-{len(self._seen) + 1}",
                amount=example.amount if amount is None else read_amount(amount, "amount"),
                scenario=entry.scenario.name,
                **{**_destination(example), "metadata": metadata, **fields},
            )
        )

    def next_payout(self, *, reference: str | None = None, timeout: float = 10.0) -> Payout:
        """Wait for a payout that the application creates, and return it.

        With `reference`, it is the payout with that merchant reference. Without, it is the oldest that neither `pays` nor an
        earlier call has returned. `timeout` is in seconds of real time. Raises AssertionError, which lists the payouts that
        exist.
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout
        pause = _FIRST_PAUSE_SECONDS
        while True:
            is_last = time.monotonic() >= deadline
            newest = list(islice(self.client.payouts.list(limit=_LIST_LIMIT, merchant_reference=reference), _LIST_LIMIT))
            found = [one for one in reversed(newest) if reference or one.id not in self._seen]
            if found:
                return self._see(found[0])
            if is_last:
                break
            time.sleep(pause)
            pause = min(pause * 1.5, _MAX_PAUSE_SECONDS)
        others = islice(self.client.payouts.list(limit=10), 10)
        exist = ", ".join(f"{one.merchant_reference} ({one.status})" for one in others) or "none"
        wanted = f"with reference {reference!r}" if reference else "that the test does not know yet"
        raise AssertionError(f"no payout {wanted} was created within {timeout:g} s. The newest payouts: {exist}.")

    def payout(self, payout: Any) -> Payout:
        """Return a payout as it is now. It is given as a payout or its id. Raises ProblemError."""
        return self._see(self.client.payouts.get(payout_id_of(payout)))

    @property
    def balance(self) -> Balance:
        """The merchant's balance now."""
        shown = self.client.balance.get()
        return Balance(shown.available_balance, shown.locked_balance, shown.balance, shown.currency)

    def _see(self, payout: Payout) -> Payout:
        self._seen.add(payout.id)
        return payout

    # Time.

    def advance(self, duration: Any = None, *, to: datetime | str | None = None) -> ClockRun:
        """Move the merchant's clock on, and return when everything that fell due on the way is done. `ran` lists it in order.

        `duration` is a number of seconds, a timedelta or text such as "60s" or "1h 30m"; or else `to` is a time. Steps of
        payouts, webhooks and their retries run in order. Raises UsageError, and AssertionError if the work does not end.
        """
        __tracebackhide__ = True
        if (duration is None) == (to is None):
            raise UsageError('psp.advance needs either a duration, such as "60s", or to=.')
        if to is None:
            run = self.client.clock.advance(seconds=seconds_of(duration))
        else:
            run = self.client.clock.advance(to=wire_time(read_time(to, "to")))
        if not run.complete:
            raise AssertionError(f"the clock has stopped at {run.now}, after {run.steps} steps: {run.stopped_because}")
        if not self._frozen:
            drained = self._drain()
            run = replace(run, steps=run.steps + drained.steps, ran=[*run.ran, *drained.ran])
        self._process_clock.move(run.now)
        return run

    def freeze(self, at: datetime | str | None = None, *, process: bool = False) -> datetime:
        """Freeze the merchant's clock, now or at a time that is not before its time, and return its time.

        With `process`, the clock of this process, with the test and its live applications, is frozen at the same time and moves
        with `advance`, until `resume` or the end of the test. Webhooks are then signed with the merchant's time. This needs the
        extra psp-sandbox[freeze]. Raises UsageError.
        """
        now = self.client.clock.freeze(at=None if at is None else wire_time(read_time(at, "at"))).now
        self._frozen = True
        if process:
            self._sign_with("merchant")
            self._process_clock.freeze(now)
        else:
            self._process_clock.move(now)
        return now

    def resume(self) -> None:
        """Let the merchant's clock run on from its time, and this process's clock from the host's time."""
        self.client.clock.resume()
        self._frozen = False
        if self._process_clock.is_frozen:
            self._process_clock.resume()
            self._sign_with("host")

    def _sign_with(self, signing_time: Literal["host", "merchant"]) -> None:
        for endpoint in self.client.webhook_endpoints.list(limit=_LIST_LIMIT):
            self.client.webhook_endpoints.change(endpoint.id, signing_time=signing_time)

    @cached_property
    def _process_clock(self) -> ProcessClock:
        clock = ProcessClock()
        self._cleanups.callback(clock.resume)
        return clock

    @property
    def is_process_frozen(self) -> bool:
        """Whether the clock of this process is frozen with the merchant's."""
        return self._process_clock.is_frozen

    @property
    def now(self) -> datetime:
        """The merchant's time."""
        return self.client.clock.get().now

    def drain(self) -> None:
        """Wait until everything that is due is done: steps of payouts, bulk credits and webhooks. Raises AssertionError."""
        __tracebackhide__ = True
        self._drain()

    def _drain(self) -> Drained:
        __tracebackhide__ = True
        drained = self.client.drain()
        if not drained.drained:
            raise AssertionError(f"the sandbox still has work that is due: {drained.stopped_because}")
        return drained

    # Webhooks, faults and applications.

    @cached_property
    def webhooks(self) -> Webhooks:
        """The verified webhooks that this test received; `psp.webhooks(payout)` are those of one payout."""
        return Webhooks(self._inbox, self.drain, can_change=lambda: self.has_app or not self.is_frozen)

    @cached_property
    def safepay(self) -> Safepay:
        """What an adapter of Safepay Raast needs to use this merchant."""
        return Safepay(self.client, self.merchant_id, self.api_key)

    def subscribe(self, *event_types: str) -> None:
        """Let the test's webhook endpoints receive these event types, such as "*"; by default they receive "payout.*"."""
        for endpoint in self.client.webhook_endpoints.list(limit=_LIST_LIMIT):
            self.client.webhook_endpoints.change(endpoint.id, event_types=event_types)  # type: ignore[arg-type]  # any text

    def fault(self, kind: str, on: str | None = None, *, allow_unhit: bool = False, **options: Any) -> Fault:
        """Return a fault that is active inside a `with` block.

        `on` is a request such as "POST /payouts" (`*` is any text), "webhooks" or an event type such as "payout.succeeded"; by
        default the kind decides. `options` are the kind's parameters (`status=503`, `milliseconds=200`) and `count`,
        `probability`, `ttl_seconds`, `seed`, `reference`. Without `count`, every match is hit. A fault that never takes effect
        fails the test when it ends, unless `allow_unhit`. Raises UsageError; the block raises ValidationError for options that
        do not fit.
        """
        return Fault(self.client, fault_body(kind, on, options), self.faults.append, allow_unhit=allow_unhit)

    def live_app(
        self,
        target: Any,
        /,
        *,
        path: str = "/webhooks",
        interface: Interface | None = None,
        endpoint: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> LiveApp:
        """Run an application on a free port of loopback until the test ends, with a webhook endpoint that sends to `path`.

        `target` is an ASGI or WSGI application, or a function that returns one. The function gets what its parameters ask for
        by name: `psp_url`, `api_key`, `webhook_secret`, `port`, `url` (the application's own), `webhook_url` and `psp`; the
        parameter `env`, `environ`, `config` or `settings` gets all variables as a mapping. `arguments` are passed on. While the
        application runs, the variables of `psp.env` are also in `os.environ`, with PORT. `interface`, "asgi" or
        "wsgi", says that `target` is an application, if its signature does not show it. `endpoint` has further fields for the
        webhook endpoint, such as `{"event_types": ["*"]}`. Raises AppError.
        """
        __tracebackhide__ = True
        return self._apps.run(target, path, interface, endpoint or {}, arguments)

    def live_process(
        self,
        command: Sequence[str | os.PathLike[str]],
        /,
        *,
        path: str = "/webhooks",
        ready: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float = START_SECONDS,
        endpoint: Mapping[str, Any] | None = None,
        one_clock: bool = False,
    ) -> LiveProcess:
        """Run a command as a process until the test ends, with a webhook endpoint that leads to its `path`.

        `command` is a list such as `["node", "app.js"]`, in which `{port}` becomes its port. Its environment is this process's,
        with the variables of `psp.env`, PORT and `env`. It is ready when it listens at that port of 127.0.0.1 or, with `ready`,
        when it answers that path well; `timeout` is in seconds. `cwd` is its folder, `endpoint` has further fields of the
        webhook endpoint. With `one_clock`, its clocks follow the merchant's, so that `advance` fires its timers too. Raises
        UsageError, and AppError with what the application has printed.
        """
        __tracebackhide__ = True
        return self._apps.start(command, path, ready, env or {}, cwd, timeout, endpoint or {}, one_clock)

    def forward_webhooks(self, url: str) -> None:
        """Pass the webhooks that arrive at the plugin's endpoint on to an application that the test has started itself.

        They arrive unchanged and signed with `webhook_secret`, and the sandbox gets the answer, or 502 after 15 s without one.
        Raises UsageError if `url` is not a URL, and after `live_app` or `live_process`, whose application has
        taken the endpoint over.
        """
        self._apps.forward(url)

    # The end of the test.

    @property
    def received(self) -> Inbox:
        """Everything that arrived at the test's webhook endpoints."""
        return self._inbox

    @property
    def sandbox(self) -> Sandbox:
        """The session's sandbox."""
        return self._sandbox

    @property
    def uses_own_sandbox(self) -> bool:
        """Whether the plugin has started the sandbox, so that it runs on this host."""
        return self._sandbox.is_ours

    @property
    def has_app(self) -> bool:
        """Whether the test ran an application, or passes its webhooks on to one."""
        return self._apps.has_app

    @property
    def app(self) -> LiveApp | LiveProcess | None:
        """The application that was started first, if any."""
        return self._apps.first

    @property
    def processes(self) -> Sequence[LiveProcess]:
        """The applications that run as processes, in order of their start."""
        return self._apps.processes

    @property
    def may_get_invalid_webhooks(self) -> bool:
        """Whether a fault of this test makes webhooks invalid."""
        return any(fault.target == "webhooks" and fault.kind in SPOILING_KINDS for fault in self.faults)

    @property
    def is_frozen(self) -> bool:
        """Whether the merchant's clock is frozen, as far as this test has changed it with `freeze` and `resume`."""
        return self._frozen

    def close(self) -> None:
        """Stop the applications and delete the merchant. The deletion happens in the background."""
        try:
            self._cleanups.close()
        finally:
            self._sandbox.recordings.pop(self.api_key, None)
            self._sandbox.receiver.close_path(self._own_url)
            self._sandbox.delete_later(self.merchant_id)


def _destination(example: ExamplePayout) -> dict[str, Any]:
    if example.wallet_code:
        code: dict[str, Any] = {"dest_type": "WALLET", "wallet_code": example.wallet_code}
    else:
        code = {"dest_type": "BANK", "bank_code": example.bank_code}
    return {**code, "account_number": example.account_number}
