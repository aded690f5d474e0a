"""Requests that the typed client has no method for, and an async client that keeps no connections open."""

from typing import TYPE_CHECKING, Any

from psp_sandbox.client import AsyncClient, Client
from psp_sandbox.client._callers import AsyncPool
from psp_sandbox.client._calls import new_key
from psp_sandbox.client._http import failure

if TYPE_CHECKING:
    import httpx


def send(client: Client, method: str, path: str, json: Any = None, **options: Any) -> "httpx.Response":
    """Send a request with a client's key and connections, and return the response. Raises ProblemError unless it succeeded."""
    caller = client._caller
    headers = {"X-API-KEY": caller.address.keys["merchant"] or "", **options.pop("headers", {})}
    if method not in ("GET", "HEAD"):
        headers.setdefault("X-IDEMPOTENCY-KEY", new_key())
    url = caller.address.url + path
    response = caller.pool.http().request(method, url, json=json, headers=headers, timeout=caller.address.timeout, **options)
    if not response.is_success:
        raise failure(response)
    return response


class _ShortLivedPool(AsyncPool):
    """Closes each connection after its response. A test's event loop may end before anything could close them."""

    def http(self) -> "httpx.AsyncClient":
        if self._http is None:
            import httpx

            self._http = httpx.AsyncClient(**self._address.pool_options(), limits=httpx.Limits(max_keepalive_connections=0))
        return self._http


def short_lived(url: str, api_key: str, user_agent: str) -> AsyncClient:
    """Return an async client that keeps no connection open, so that it need not be closed and works on any event loop."""
    client = AsyncClient(url, api_key=api_key, user_agent=user_agent)
    client._caller.pool = _ShortLivedPool(client._caller.address)
    return client
