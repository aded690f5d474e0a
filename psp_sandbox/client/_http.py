"""The HTTP of both the sync and the async client: the address, the keys, the retries and the reading of responses."""

import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from psp_sandbox.client._calls import Auth, Call
from psp_sandbox.client._decode import decode
from psp_sandbox.client.errors import ProblemError, PspError, UnexpectedResponse, Unreachable

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
DEFAULT_URL: Final = "http://127.0.0.1:8000"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_DEMO_KEYS: Final[dict[Auth, str]] = {"merchant": "sk_sandbox_demo_admin", "operator": "ak_sandbox_development_admin"}
"""The development keys of `psp up`. A sandbox accepts them on loopback only."""
_HEADERS: Final[dict[Auth, str]] = {"merchant": "X-API-KEY", "operator": "X-ADMIN-KEY"}
_NAMES: Final[dict[Auth, str]] = {"merchant": "api_key or PSP_API_KEY", "operator": "admin_key or PSP_ADMIN_KEY"}
_CONNECT_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_RETRIED: Final = (429, 502, 503, 504)
"""Statuses after which a call is repeated: it was not executed, or its idempotency key prevents a second effect."""


@dataclass(frozen=True)
class Address:
    """The sandbox's URL, and the keys to use there."""

    url: str
    keys: Mapping[Auth, str | None] = field(repr=False)
    timeout: float
    retries: int
    retry_seconds: float
    user_agent: str = "psp-sandbox-python"
    """The User-Agent, which the sandbox's journal shows."""

    @classmethod
    def of(
        cls,
        url: str | None,
        api_key: str | None,
        admin_key: str | None,
        timeout: float,
        retries: int,
        retry_seconds: float,
        user_agent: str | None = None,
    ) -> "Address":
        """Return the address. The environment supplies the arguments that are None. Raises ValueError if the URL is not one."""
        found = (url or os.environ.get("PSP_URL") or DEFAULT_URL).rstrip("/")
        parts = urlsplit(found)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{found!r} is not the URL of a sandbox; it looks like {DEFAULT_URL}")
        demo = _DEMO_KEYS if parts.hostname in _LOOPBACK else {}
        keys: dict[Auth, str | None] = {
            "merchant": api_key or os.environ.get("PSP_API_KEY") or demo.get("merchant"),
            "operator": admin_key or os.environ.get("PSP_ADMIN_KEY") or demo.get("operator"),
        }
        return cls(found, keys, timeout, retries, retry_seconds, user_agent or cls.user_agent)

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """Return the arguments of httpx for a call. Raises PspError if the call needs a key that is not known."""
        import httpx

        options = call.content()
        if call.auth != "none":
            key = self.keys[call.auth]
            if key is None:
                raise PspError(f"This call needs a key: give {_NAMES[call.auth]}.")
            options["headers"][_HEADERS[call.auth]] = key
        options["timeout"] = httpx.Timeout(self.timeout + call.waits, connect=min(self.timeout, _CONNECT_SECONDS))
        return {"method": call.method, "url": self.url + call.path, "params": call.query or None, **options}

    def pool_options(self) -> dict[str, Any]:
        """Return the arguments of an httpx client."""
        # Loading the certificate authorities takes 30 ms, and plain HTTP does not need them.
        return {"verify": self.url.startswith("https:"), "headers": {"User-Agent": self.user_agent}}


def page_of(call: Call[T], cursor: str | None) -> Call[dict[str, Any]]:
    """Return the call for one page of the list that `call` asks for: the first one, or the one at the cursor."""
    return replace(
        cast(Call[Any], call), result=dict[str, Any], query={**call.query, "cursor": cursor} if cursor else call.query
    )


def items_of(call: Call[T], page: dict[str, Any]) -> tuple[list[T], str | None]:
    """Return the items of a page, and the cursor of the next one, or None if there is none."""
    items: list[T] = decode(cast(Any, list)[call.result], page["data"])
    return items, page["next_cursor"] if page["has_more"] else None


class Retrying:
    """Counts the tries of one call, and says how long to wait before the next one. It ends the call if there is none."""

    def __init__(self, address: Address, call: Call[Any]) -> None:
        self._address = address
        self._call = call
        self._left = address.retries if call.is_repeatable else 0
        self._pause = _FIRST_PAUSE
        self._ends = time.monotonic() + address.retry_seconds

    def after_error(self, error: "httpx.TransportError") -> float:
        """Return the seconds to wait after a try without an answer. Raises Unreachable if that was the last one."""
        pause = self._next(0.0)
        if pause is None:
            raise unreachable(self._address, self._call, error) from error
        return pause

    def after_response(self, response: "httpx.Response") -> float | None:
        """Return the seconds to wait if this response is to be retried, or else None."""
        if response.status_code in _RETRIED or (
            response.status_code == 409 and b"IDEMPOTENCY_KEY_IN_FLIGHT" in response.content
        ):
            return self._next(_retry_after(response))
        return None

    def _next(self, at_least: float) -> float | None:
        # Retries of many clients that failed together should not arrive together.
        pause = max(at_least, self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
        if self._left == 0 or time.monotonic() + pause > self._ends:
            return None
        self._left -= 1
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return pause


def unreachable(address: Address, call: Call[Any], error: Exception) -> Unreachable:
    """Return the exception for a call that got no answer."""
    reason = str(error) or type(error).__name__
    key = call.idempotency_key
    repeat = f" It may have been executed: repeat it with idempotency_key={key!r}." if key is not None else ""
    return Unreachable(f"{call.method} {address.url}{call.path} got no answer: {reason}.{repeat}", key)


def failure(response: "httpx.Response") -> ProblemError:
    """Return the exception for an error response, whose body is read."""
    request_id = response.headers.get("X-Request-Id", "")
    return problem_error(response.status_code, _json(response), response.text[:500], request_id)


def problem_error(status: int, body: Any, text: str, request_id: str) -> ProblemError:
    """Return the exception for an error response: `body` is its JSON, if it is JSON, and `text` how it begins otherwise."""
    # Most programs never need the exceptions of all codes.
    from psp_sandbox.client import problems
    from psp_sandbox.client.models import Problem

    try:
        problem = decode(Problem, body)
    except (KeyError, TypeError, ValueError):
        problem = Problem(
            type="about:blank",
            title=f"HTTP {status}",
            status=status,
            detail=text or "The answer has no problem details: it may not come from a sandbox.",
            instance="",
            code=f"HTTP_{status}",
            request_id=request_id,
        )
    return problems.BY_CODE.get(problem.code, ProblemError)(problem)


def result(call: Call[T], response: "httpx.Response") -> T:
    """Return the result of a call. Raises ProblemError, or UnexpectedResponse."""
    if not response.is_success:
        raise failure(response)
    try:
        if call.result is type(None):
            return decode(call.result, None)
        body: Any = response.text if call.result is str else response.json()
        return decode(call.result, body if call.member is None else body[call.member])
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UnexpectedResponse(
            f"{call.method} {call.path}: the response is not a {call.result.__name__} ({type(error).__name__}: {error}). "
            f"It begins: {response.text[:200]}"
        ) from error


def _json(response: "httpx.Response") -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _retry_after(response: "httpx.Response") -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0
