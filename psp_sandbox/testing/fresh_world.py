"""A new merchant for calls that are written out, as `psp world to-test` writes them."""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.testing.counted import counted
from psp_sandbox.testing.stand_in import StandIn

if TYPE_CHECKING:
    import httpx

_WAIT_SECONDS: Final = 10.0
"""How long a GET is repeated until its answer is as expected: workers act in the background."""
_POLL_SECONDS: Final = 0.05


Answers = Mapping[str, Sequence[int]]
"""Event type → the statuses of a receiver's first answers."""


class CannotReplayError(ValueError):
    """The bundle cannot be repeated, or the sandbox refuses to create a merchant for it."""


class FreshWorld:
    """A new merchant, with an HTTP client that has its admin key. Deletes the merchant at the end unless `keep`."""

    def __init__(
        self, url: str = "", admin_key: str = "", *, has_endpoint: bool = False, answers: Answers | None = None, **fields: Any
    ) -> None:
        """Name the sandbox and the fields of `POST /sandbox/v1/merchants`.

        The URL and the operator's key default to PSP_URL and PSP_ADMIN_KEY. If `has_endpoint`, the merchant is created with a
        webhook endpoint, whose receiver answers as `answers` says, and otherwise 200.
        """
        self.keep = False
        self.merchant_id = ""
        self.api_key = ""
        self._fields = {"name": "replay", **fields}
        self._has_endpoint = has_endpoint
        self._answers = answers
        self._url = url or os.environ.get("PSP_URL", "http://127.0.0.1:8000")
        self._admin_key = admin_key or os.environ.get("PSP_ADMIN_KEY", "")
        self._http: httpx.Client | None = None
        self._receiver: StandIn | None = None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "FreshWorld":
        import httpx  # imported here, so that projects that do not replay need not wait for it

        if not self._admin_key:
            raise CannotReplayError("A fresh merchant needs the operator's key: set PSP_ADMIN_KEY, or pass admin_key.")
        with contextlib.ExitStack() as closing:
            self._http = closing.enter_context(httpx.Client(base_url=self._url, timeout=httpx.Timeout(70, connect=5)))
            self._closing = closing
            if self._has_endpoint:
                self._fields["webhook_url"] = self.receiver_url(answers=self._answers)
            response = self._http.post("/sandbox/v1/merchants", json=self._fields, headers={"X-ADMIN-KEY": self._admin_key})
            if response.status_code != 201:
                raise CannotReplayError(f"The sandbox refuses to create a merchant: {response.status_code} {response.text}")
            created = response.json()
            self.merchant_id, self.api_key = created["merchant_id"], created["api_key"]
            closing.callback(self._delete)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _delete(self) -> None:
        if not self.keep:
            self.send("DELETE", f"/sandbox/v1/merchants/{self.merchant_id}", headers={"X-ADMIN-KEY": self._admin_key})

    def receiver_url(self, name: str = "", answers: Answers | None = None) -> str:
        """Return the URL of a receiver. Each name has its own URL.

        `answers` are the statuses with which it answers the first webhooks of an event type, 0 for none; all others get 200.
        """
        if self._receiver is None:
            self._receiver = self._closing.enter_context(StandIn({}))
        self._receiver.answer_with(name, answers or {})
        return self._receiver.url_for(name)

    def assert_delivered(self) -> None:
        """Finish the work that is due. Raises AssertionError if the last attempt of a webhook's delivery then has failed."""
        __tracebackhide__ = True
        self.call("POST", "/sandbox/v1/drain")
        found: list[dict[str, Any]] = []
        query = "limit=100"
        while query:
            page = self.call("GET", f"/api/v1/webhook-deliveries?{query}")
            found += [one for one in page["data"] if one["status"] != "SUCCEEDED" and one["attempt_count"]]
            query = f"limit=100&cursor={page['next_cursor']}" if page["next_cursor"] else ""
        lines = [
            f"{one['event_type']} is {one['status']} after {counted(one['attempt_count'], 'attempt')}" for one in found[:10]
        ]
        assert not found, "\n".join([f"{counted(len(found), 'webhook delivery', 'webhook deliveries')} failed:", *lines])

    def send(self, method: str, path: str, **options: Any) -> "httpx.Response":
        """Send a request with the admin key, unless `headers` has another one."""
        assert self._http is not None, "use it in a with statement"
        headers = {"X-API-KEY": self.api_key, **options.pop("headers", {})}
        return self._http.request(method, path, headers=headers, **options)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        status: int = 200,
        expect: Any = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make a call, and return the JSON of its answer.

        The answer must have the status, and the fields of `expect`; it may have more fields, but lists must have as many items.
        A GET is repeated for a while until it does. `key` is the idempotency key, by default a new one. Raises AssertionError.
        """
        __tracebackhide__ = True
        options: dict[str, Any] = {"headers": {"X-IDEMPOTENCY-KEY": key or str(uuid.uuid4()), **(headers or {})}}
        if body is not None:
            options["json"] = body
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            response = self.send(method, path, **options)
            answer = _json(response.text)
            wrong = _wrong(status, response.status_code, "status") or _wrong(expect, answer, "")
            if wrong is None:
                return answer
            if method != "GET" or time.monotonic() > deadline:
                raise AssertionError(f"{method} {path}: {wrong}\nThe answer was {response.status_code} {response.text[:2000]}")
            time.sleep(_POLL_SECONDS)


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _wrong(expected: Any, found: Any, where: str) -> str | None:
    """Return the first expectation that is not met, or None."""
    if expected is None and not where:
        return None
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            place = f"{where}.{name}" if where else name
            wrong = _wrong(value, found[name], place) if name in found else f"{place} is missing"
            if wrong is not None:
                return wrong
        return None
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{where} should have {len(expected)} items, but has {len(found)}"
        pairs = enumerate(zip(expected, found, strict=True))
        return next((wrong for place, pair in pairs if (wrong := _wrong(*pair, f"{where}[{place}]")) is not None), None)
    return None if expected == found else f"{where} should be {expected!r}, but is {found!r}"
