"""A test's own merchant: its payouts, clock, webhooks, faults and applications."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.testing.faults import SPOILING_KINDS, Fault, fault_body
from psp_sandbox.testing.live_app import AppError, Door, Interface, LiveApp, bind, create, interface_of, serve
from psp_sandbox.testing.options import Options, UsageError, read_amount, read_time, wire_time
from psp_sandbox.testing.process_clock import ProcessClock
from psp_sandbox.testing.results import Advanced, Balance, Payout, Ran, seconds_of
from psp_sandbox.testing.sandbox import Sandbox
from psp_sandbox.testing.webhooks import Inbox, Webhooks

if TYPE_CHECKING:
    import httpx

_MAX_CONTINUATIONS: Final = 40
_POLL_SECONDS: Final = 0.02
_LIST_LIMIT: Final = 100


class World:
    """A merchant that only this test uses: the fixture `psp`.

    `url`, `api_key`, `webhook_secret` and `ipn_secret` are what an application needs to use it; `merchant_id` is its id.
    """

    def __init__(self, sandbox: Sandbox, options: Options) -> None:
        self._sandbox = sandbox
        self._options = options
        self._inbox = Inbox()
        self._seen: set[str] = set()
        self._cleanups = contextlib.ExitStack()
        self._apps: list[LiveApp] = []
        self._frozen = options.frozen
        self.faults: list[Fault] = []
        """The faults of this test that have ended."""
        self.allow_failed_deliveries = options.allow_failed_deliveries
        """Whether the test may end with deliveries that have failed. Set it to True in a test that expects that."""
        self.allow_unhit_faults = options.allow_unhit_faults
        """Whether the test may end with faults that never took effect."""
        self._own_url, mailbox = sandbox.receiver.open(self._inbox)
        created = sandbox.create_merchant({**options.body(), "webhook_url": self._own_url})
        self.url = sandbox.url
        self.merchant_id = created["merchant_id"]
        self.api_key = created["api_key"]
        self.webhook_secret = created["webhook_secret"]
        self.ipn_secret = created["ipn_secret"]
        mailbox.secret = self.webhook_secret

    @property
    def name(self) -> str:
        """The merchant's name; by default the test's id."""
        return self._options.name

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that an application needs: PSP_URL, PSP_API_KEY and PSP_WEBHOOK_SECRET."""
        return {"PSP_URL": self.url, "PSP_API_KEY": self.api_key, "PSP_WEBHOOK_SECRET": self.webhook_secret}

    def request(self, method: str, path: str, json: Any = None, **options: Any) -> "httpx.Response":
        """Send a request with the merchant's key, and return a successful response. Raises SandboxError."""
        return self._sandbox.request(method, path, self.api_key, json, **options)

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
        SandboxError if the payout is refused.
        """
        __tracebackhide__ = True
        entry = self._scenario(scenario)
        example = entry["example"]
        code = "wallet_code" if example["wallet_code"] else "bank_code"
        body = {
            "merchant_reference": reference or f"{scenario}-{len(self._seen) + 1}",
            "amount": example["amount"] if amount is None else f"{read_amount(amount, 'amount'):.2f}",
            "dest_type": "WALLET" if example["wallet_code"] else "BANK",
            code: example[code],
            "account_number": example["account_number"],
            **({"metadata": dict(metadata)} if metadata else {}),
            **fields,
        }
        header, _, value = entry["header"].partition(": ")
        return self._seen_payout(self.request("POST", "/api/v1/payouts", body, headers={header: value}).json())

    def next_payout(self, *, reference: str | None = None, timeout: float = 10.0) -> Payout:
        """Wait for a payout that the application creates, and return it.

        With `reference`, it is the payout with that merchant reference. Without, it is the oldest that neither `pays` nor an
        earlier call has returned. `timeout` is in seconds of real time. Raises AssertionError, which lists the payouts that
        exist.
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout
        query: dict[str, Any] = {"limit": _LIST_LIMIT} | ({"merchant_reference": reference} if reference else {})
        while True:
            is_last = time.monotonic() >= deadline
            newest_first = self.request("GET", "/api/v1/payouts", params=query).json()["data"]
            found = [one for one in reversed(newest_first) if reference or one["id"] not in self._seen]
            if found:
                return self._seen_payout(found[0])
            if is_last:
                break
            time.sleep(_POLL_SECONDS)
        others = self.request("GET", "/api/v1/payouts", params={"limit": 10}).json()["data"]
        exist = ", ".join(f"{one['merchant_reference']} ({one['status']})" for one in others) or "none"
        wanted = f"with reference {reference!r}" if reference else "that the test does not know yet"
        raise AssertionError(f"no payout {wanted} was created within {timeout:g} s. The newest payouts: {exist}.")

    def payout(self, payout: Any) -> Payout:
        """Return a payout as it is now. It is given as a payout or its id. Raises SandboxError."""
        payout_id = payout if isinstance(payout, str) else payout.id
        return self._seen_payout(self.request("GET", f"/api/v1/payouts/{payout_id}").json())

    @property
    def balance(self) -> Balance:
        """The merchant's balance now."""
        shown = self.request("GET", "/api/v1/balance").json()
        return Balance(
            available=Decimal(shown["available_balance"]),
            locked=Decimal(shown["locked_balance"]),
            total=Decimal(shown["balance"]),
            currency=shown["currency"],
        )

    def _seen_payout(self, shown: dict[str, Any]) -> Payout:
        self._seen.add(shown["id"])
        return Payout.of(shown)

    def _scenario(self, name: str) -> dict[str, Any]:
        shared = self._sandbox.catalogue
        if name in shared:
            return dict(shared[name])
        # The first test reads the catalogue for all; a name that is not in it may be one of the merchant's own.
        entries = self.request("GET", "/sandbox/v1/catalogue").json()["scenarios"]
        by_name: dict[str, Any] = {}
        for entry in entries:
            by_name.setdefault(entry["scenario"]["name"], entry)
        shared.update({key: entry for key, entry in by_name.items() if entry["scenario"]["source"] == "builtin"})
        if name not in by_name:
            raise UsageError(f"There is no scenario {name!r}. There are: {', '.join(sorted(by_name))}.")
        return dict(by_name[name])

    # Time.

    def advance(self, duration: Any = None, *, to: datetime | str | None = None) -> Advanced:
        """Move the merchant's clock on, and return when everything that fell due on the way is done.

        `duration` is a number of seconds, a timedelta or text such as "60s" or "1h 30m"; or else `to` is a time. Steps of
        payouts, webhooks and their retries run in order. Raises UsageError, and AssertionError if the work does not end.
        """
        __tracebackhide__ = True
        if (duration is None) == (to is None):
            raise UsageError('psp.advance needs either a duration, such as "60s", or to=.')
        body: dict[str, Any] = {"seconds": seconds_of(duration)} if to is None else {"to": wire_time(read_time(to, "to"))}
        ran: list[Ran] = []
        steps = 0
        for _ in range(_MAX_CONTINUATIONS):
            shown = self.request("POST", "/sandbox/v1/clock/advance", body).json()
            ran += map(Ran.of, shown["ran"])
            steps += shown["steps"]
            if shown["complete"]:
                break
            # The clock has stopped on its way; the rest of the way is up to the same time.
            body = {"to": body["to"]} if "to" in body else {"seconds": _rest(body["seconds"], shown)}
        else:
            raise AssertionError(f"the clock is still on its way after {steps} steps: {shown['stopped_because']}")
        if not self._frozen:
            drained = self._drain()
            ran += map(Ran.of, drained["ran"])
            steps += drained["steps"]
        now = datetime.fromisoformat(shown["now"])
        self._process_clock.move(now)
        return Advanced(now, steps, tuple(ran))

    def freeze(self, at: datetime | str | None = None, *, process: bool = False) -> datetime:
        """Freeze the merchant's clock, now or at a time that is not before its time, and return its time.

        With `process`, the clock of this process, with the test and its live applications, is frozen at the same time and moves
        with `advance`, until `resume` or the end of the test. Webhooks are then signed with the merchant's time. This needs the
        extra psp-sandbox[freeze]. Raises UsageError.
        """
        body = {} if at is None else {"at": wire_time(read_time(at, "at"))}
        shown = self.request("POST", "/sandbox/v1/clock/freeze", body).json()
        self._frozen = True
        now = datetime.fromisoformat(shown["now"])
        if process:
            self._sign_with("merchant")
            self._process_clock.freeze(now)
        else:
            self._process_clock.move(now)
        return now

    def resume(self) -> None:
        """Let the merchant's clock run on from its time, and this process's clock from the host's time."""
        self.request("POST", "/sandbox/v1/clock/resume", {})
        self._frozen = False
        if self._process_clock.is_frozen:
            self._process_clock.resume()
            self._sign_with("host")

    def _sign_with(self, signing_time: str) -> None:
        for endpoint in self.request("GET", "/api/v1/webhook-endpoints", params={"limit": _LIST_LIMIT}).json()["data"]:
            self.request("PATCH", f"/api/v1/webhook-endpoints/{endpoint['id']}", {"signing_time": signing_time})

    @cached_property
    def _process_clock(self) -> ProcessClock:
        clock = ProcessClock()
        self._cleanups.callback(clock.resume)
        return clock

    @property
    def now(self) -> datetime:
        """The merchant's time."""
        return datetime.fromisoformat(self.request("GET", "/sandbox/v1/clock").json()["now"])

    def drain(self) -> None:
        """Wait until everything that is due is done: steps of payouts, bulk credits and webhooks. Raises AssertionError."""
        self._drain()

    def _drain(self) -> dict[str, Any]:
        __tracebackhide__ = True
        for _ in range(_MAX_CONTINUATIONS):
            shown: dict[str, Any] = self.request("POST", "/sandbox/v1/drain", {}).json()
            if shown["drained"]:
                return shown
        raise AssertionError(f"the sandbox still has work that is due: {shown['stopped_because']}")

    # Webhooks, faults and applications.

    @cached_property
    def webhooks(self) -> Webhooks:
        """The verified webhooks that this test received; `psp.webhooks(payout)` are those of one payout."""
        return Webhooks(self._inbox, self.drain)

    def fault(self, kind: str, on: str | None = None, *, allow_unhit: bool = False, **options: Any) -> Fault:
        """Return a fault that is active inside a `with` block.

        `on` is a request such as "POST /payouts" (`*` is any text), "webhooks" or an event type such as "payout.succeeded"; by
        default the kind decides. `options` are the kind's parameters (`status=503`, `milliseconds=200`) and `count`,
        `probability`, `ttl_seconds`, `seed`, `reference`. Without `count`, every match is hit. A fault that never takes effect
        fails the test when it ends, unless `allow_unhit`. Raises UsageError, and SandboxError for options that do not fit.
        """
        return Fault(self.request, fault_body(kind, on, options), self.faults.append, allow_unhit=allow_unhit)

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
        application runs, the variables of `psp.env` are also in `os.environ`, with PORT. `endpoint` has further fields for the
        webhook endpoint, such as `{"event_types": ["*"]}`. Raises AppError.
        """
        __tracebackhide__ = True
        if not path.startswith("/"):
            raise UsageError(f"path={path!r} must begin with /")
        listener = bind()
        try:
            port = listener.getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            fields = {"signing_time": "merchant"} if self._process_clock.is_frozen else {}
            endpoint_id, secret = self._endpoint(f"{url}{path}", {**fields, **(endpoint or {})})
            env = {**self.env, "PSP_WEBHOOK_SECRET": secret, "PORT": str(port)}
            self._set_environment(env)
            app = target
            if interface_of(target) is None and interface is None:
                offered = {
                    "psp": self, "psp_url": self.url, "api_key": self.api_key, "webhook_secret": secret, "port": port,
                    "url": url, "webhook_url": f"{url}{path}",
                }  # fmt: skip
                app = create(target, offered, env, arguments)
            elif arguments:
                raise AppError(
                    f"{target!r} is an application, not a function that returns one: it takes no {', '.join(arguments)}."
                )
            is_checked = (endpoint or {}).get("signing", "v1") == "v1"
            server = serve(app, interface, listener, Door(self._inbox, path, secret if is_checked else None))
        except BaseException:
            listener.close()
            raise
        live = LiveApp(app, url, port, f"{url}{path}", secret, endpoint_id, server)
        self._cleanups.callback(live.stop)
        self._apps.append(live)
        return live

    def _endpoint(self, url: str, fields: Mapping[str, Any]) -> tuple[str, str]:
        """Make the webhook endpoint of an application, and return its id and secret.

        The first application takes over the endpoint of the plugin's own receiver, so that every event still has one delivery.
        """
        if not self._apps:
            found = self.request("GET", "/api/v1/webhook-endpoints", params={"limit": _LIST_LIMIT}).json()["data"]
            own = [one["id"] for one in found if one["url"] == self._own_url]
            if own and "signing" not in fields:
                self.request("PATCH", f"/api/v1/webhook-endpoints/{own[0]}", {"url": url, **fields})
                return own[0], self.webhook_secret
            if own:
                self.request("DELETE", f"/api/v1/webhook-endpoints/{own[0]}")
        created = self.request("POST", "/api/v1/webhook-endpoints", {"url": url, **fields}).json()
        return created["id"], created.get("secret") or ""

    def _set_environment(self, env: Mapping[str, str]) -> None:
        before = {name: os.environ.get(name) for name in env}

        def restore() -> None:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

        self._cleanups.callback(restore)
        os.environ.update(env)

    # The end of the test.

    @property
    def received(self) -> Inbox:
        """Everything that arrived at the test's webhook endpoints."""
        return self._inbox

    @property
    def has_app(self) -> bool:
        """Whether the test ran an application."""
        return bool(self._apps)

    @property
    def may_get_invalid_webhooks(self) -> bool:
        """Whether a fault of this test makes webhooks invalid."""
        return any(fault.target == "webhooks" and fault.kind in SPOILING_KINDS for fault in self.faults)

    @property
    def is_frozen(self) -> bool:
        """Whether the merchant's clock is frozen, so far as this test has changed it with `freeze` and `resume`."""
        return self._frozen

    def close(self) -> None:
        """Stop the applications and delete the merchant. The deletion happens in the background."""
        try:
            self._cleanups.close()
        finally:
            self._sandbox.receiver.close_path(self._own_url)
            self._sandbox.delete_later(self.merchant_id)


def _rest(seconds: float, shown: Mapping[str, Any]) -> float:
    went = (datetime.fromisoformat(shown["now"]) - datetime.fromisoformat(shown["from"])).total_seconds()
    return max(0.0, seconds - went)


Factory = Callable[..., Any]
