"""The session's sandbox: its connection, its merchants and the threads that all tests of a pytest process share."""

import contextlib
import queue
import threading
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import httpx

from psp_sandbox.testing.process import Address
from psp_sandbox.testing.receiver import Receiver

_TIMEOUT_SECONDS: Final = 60.0
_MAX_WAITING: Final = 64
"""Merchants that wait to be deleted. A test that ends while so many wait, waits too."""
_CLOSE_SECONDS: Final = 30.0
_UNREACHABLE: Final = (httpx.TransportError,)


class SandboxError(Exception):
    """The sandbox refused a request of the plugin, or did not answer."""


@dataclass(slots=True)
class Counted:
    """How many requests the plugin has sent, by method and path. For its own tests."""

    requests: list[str] = field(default_factory=list)


class Sandbox:
    """A running sandbox, and what all tests of this process share: connections, the webhook receiver, the deletion of
    merchants.

    `url` is its API's URL, `admin_key` the operator's key. `is_ours` says that it ends with the test session.
    """

    def __init__(self, address: Address, *, is_ours: bool) -> None:
        self.url = address.url.rstrip("/")
        self.admin_key = address.admin_key
        self.is_ours = is_ours
        self.counted = Counted()
        self._http = httpx.Client(
            base_url=self.url,
            timeout=_TIMEOUT_SECONDS,
            # A transport of its own avoids 30 ms for the CA certificates, which a sandbox on loopback does not need.
            transport=httpx.HTTPTransport(verify=self.url.startswith("https:")),
            trust_env=False,
        )
        self._waiting: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._deleter: threading.Thread | None = None
        self.catalogue: dict[str, Any] = {}
        """The built-in scenarios by name, once a test has needed them."""

    @cached_property
    def receiver(self) -> Receiver:
        """The webhook receiver of this process, which starts when it is first used."""
        return Receiver()

    def request(self, method: str, path: str, key: str | None = None, json: Any = None, **options: Any) -> httpx.Response:
        """Send a request with a merchant's key, or as the operator. Return a successful response. Raises SandboxError."""
        headers = {"X-ADMIN-KEY": self.admin_key} if key is None else {"X-API-KEY": key}
        if method != "GET":
            headers["X-IDEMPOTENCY-KEY"] = str(uuid.uuid4())
        headers |= options.pop("headers", {})
        self.counted.requests.append(f"{method} {path}")
        response = self._send(method, path, headers, json, options)
        if response.is_success:
            return response
        raise SandboxError(_explain(method, path, response, is_operator=key is None))

    def _send(self, method: str, path: str, headers: dict[str, str], json: Any, options: dict[str, Any]) -> httpx.Response:
        try:
            try:
                return self._http.request(method, path, headers=headers, json=json, **options)
            except (httpx.RemoteProtocolError, httpx.ReadError):
                # An idle connection may be closed at the moment of its use. The idempotency key makes the repetition safe.
                return self._http.request(method, path, headers=headers, json=json, **options)
        except httpx.TransportError as error:
            raise SandboxError(
                f"{method} {self.url}{path}: the sandbox does not answer ({error or type(error).__name__})"
            ) from error

    def create_merchant(self, body: dict[str, Any]) -> dict[str, str]:
        """Create a merchant and return its id, key and secrets. Raises SandboxError."""
        created: dict[str, str] = self.request("POST", "/sandbox/v1/merchants", json=body).json()
        return created

    def delete_later(self, merchant_id: str) -> None:
        """Delete a merchant in the background, while the next test runs."""
        if self._deleter is None:
            self._deleter = threading.Thread(target=self._delete, name="psp-delete", daemon=True)
            self._deleter.start()
        self._waiting.put(merchant_id)

    def _delete(self) -> None:
        while (merchant_id := self._waiting.get()) is not None:
            # It may be gone already, and a sandbox that has ended needs no deletion.
            with contextlib.suppress(SandboxError):
                self.request("DELETE", f"/sandbox/v1/merchants/{merchant_id}")

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
        self._http.close()


def _explain(method: str, path: str, response: httpx.Response, *, is_operator: bool) -> str:
    try:
        problem = response.json()
        reason = f"{problem['status']} {problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        reason = f"{response.status_code} {response.text[:500]}"
    hint = ""
    if is_operator and response.status_code in (401, 403):
        hint = " Pass the operator's key of this sandbox with --psp-admin-key or PSP_ADMIN_KEY."
    return f"{method} {path}: {reason}{hint}"
