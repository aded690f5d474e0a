"""The session's sandbox: its connections, its merchants and the threads that all tests of a pytest process share."""

import contextlib
import queue
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.client import Client, ProblemError, PspError
from psp_sandbox.client.models import CatalogueEntry, NewMerchant
from psp_sandbox.testing.one_clock.clocks import Clocks
from psp_sandbox.testing.one_clock.library import OneClockError
from psp_sandbox.testing.options import UsageError
from psp_sandbox.testing.process import Address
from psp_sandbox.testing.receiver import LOOPBACK, Receiver
from psp_sandbox.testing.recording import Recording

if TYPE_CHECKING:
    import httpx

USER_AGENT: Final = "psp-sandbox-pytest"
"""The User-Agent of the test's own calls. All other calls in the journal are the application's."""
_TIMEOUT_SECONDS: Final = 60.0
_RETRIES: Final = 2
"""How often a call is retried: rarely, because a fault may be meant to hit every try."""
_MAX_WAITING: Final = 64
"""Maximum number of merchants that wait to be deleted. A test that ends while there are so many waits for one."""
_CLOSE_SECONDS: Final = 30.0


class Sandbox:
    """A running sandbox, and what all tests of this process share: connections, the webhook receiver, the deletion of
    merchants.

    `url` is its API's URL, `admin_key` the operator's key. `is_ours` says that it ends with the test session.
    """

    def __init__(self, address: Address, *, is_ours: bool, webhook_host: str = LOOPBACK) -> None:
        self.url = address.url.rstrip("/")
        self.is_ours = is_ours
        self.webhook_host = webhook_host
        """The name or address by which the sandbox reaches this process."""
        self._clock_folder = address.clock_folder
        self.client = Client(
            self.url, admin_key=address.admin_key, timeout=_TIMEOUT_SECONDS, retries=_RETRIES, user_agent=USER_AGENT
        )
        self.admin_key = self.client._caller.address.keys["operator"] or ""
        self.client._caller.pool.http().event_hooks = {"request": [self._record]}
        self.recordings: dict[str, Recording] = {}
        """API key → where its calls are recorded."""
        self._waiting: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._deleter: threading.Thread | None = None
        self._scenarios: dict[str, CatalogueEntry] = {}
        """The built-in scenarios by name, once a test has needed them."""

    def _record(self, request: "httpx.Request") -> None:
        recording = self.recordings.get(request.headers.get("X-API-KEY", ""))
        if recording is not None:
            recording.add_call(request)

    @cached_property
    def receiver(self) -> Receiver:
        """The webhook receiver of this process, which starts when it is first used."""
        return Receiver(self.webhook_host)

    @cached_property
    def clocks(self) -> Clocks:
        """The clocks of applications that follow their merchants. Raises OneClockError if that is impossible here."""
        if self._clock_folder is None:
            raise OneClockError("One clock needs a sandbox that the plugin starts, so leave out --psp-url and PSP_URL.")
        return Clocks(Path(self._clock_folder))

    def create_merchant(self, body: dict[str, Any]) -> NewMerchant:
        """Create a merchant from the fields of `POST /merchants`.

        Raises PspError, which says how to pass the operator's key.
        """
        try:
            return self.client.merchants.create(**body)
        except ProblemError as problem:
            if problem.status not in (401, 403):
                raise
            hint = "Pass the operator's key of this sandbox with --psp-admin-key or PSP_ADMIN_KEY."
            raise PspError(f"{self.url} does not accept the operator's key. {hint} ({problem})") from problem

    def scenario(self, name: str, client: Client) -> CatalogueEntry:
        """Return a scenario: a built-in one, or one of the client's merchant. Raises UsageError if there is none."""
        if name in self._scenarios:
            return self._scenarios[name]
        # The first test reads the catalogue for all; a name that is not in it may be one of the merchant's own.
        by_name: dict[str, CatalogueEntry] = {}
        for entry in client.scenarios.catalogue().scenarios:
            by_name.setdefault(entry.scenario.name, entry)
        self._scenarios.update({key: entry for key, entry in by_name.items() if entry.scenario.source == "builtin"})
        if name not in by_name:
            raise UsageError(f"There is no scenario {name!r}. There are: {', '.join(sorted(by_name))}.")
        return by_name[name]

    def delete_later(self, merchant_id: str) -> None:
        """Delete a merchant in the background, while the next test runs."""
        if self._deleter is None:
            self._deleter = threading.Thread(target=self._delete, name="psp-delete", daemon=True)
            self._deleter.start()
        self._waiting.put(merchant_id)

    def _delete(self) -> None:
        while (merchant_id := self._waiting.get()) is not None:
            # It may be gone already, and a sandbox that has ended needs no deletion.
            with contextlib.suppress(PspError):
                self.client.merchants.delete(merchant_id)

    def close(self) -> None:
        """Delete the merchants that wait to be deleted, unless the sandbox ends anyway, and close the connections."""
        if self._deleter is not None:
            if self.is_ours:
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._waiting.get_nowait()
            self._waiting.put(None)
            self._deleter.join(_CLOSE_SECONDS)
        if "receiver" in self.__dict__:
            self.receiver.close()
        self.client.close()
