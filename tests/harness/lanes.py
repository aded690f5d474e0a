"""Send requests to a chosen API process. If one gets no response, repeat it with the same idempotency key."""

import contextlib
import http.client
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import psutil

from tests.harness.merchant_model import MerchantModel, Result
from tests.harness.waiting import until
from tests.harness.world import World

SLOTS = 16
"""Connections to each API process, so that a whole burst can go to one."""
ADVANCE = "/sandbox/v1/clock/advance"
_NOT_FINAL = ((409, "IDEMPOTENCY_KEY_IN_FLIGHT"), (503, "UNAVAILABLE"))


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    status: int
    content: bytes

    @property
    def result(self) -> Result:
        """The response in the form that the model returns."""
        return self.status, json.loads(self.content)["code"] if self.status >= 400 else ""


@dataclass
class Call:
    """A request with an idempotency key. `apply` performs it on the model."""

    world: World
    method: str
    path: str
    body: dict[str, object]
    apply: Callable[[MerchantModel], Result]
    reference: str = ""
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    response: Response | None = None

    def receive(self, response: Response | None) -> bool:
        """Record a response, and check that all final responses under one key are identical.

        Return whether it is final. If not, the request must be repeated with its key.
        """
        if response is None or response.result in _NOT_FINAL:
            return False
        if self.path == ADVANCE and response.result == (409, "INVALID_STATE"):
            return False  # for a few seconds after a crash, the clock is leased to the process that died
        assert self.response in (None, response), f"{self.path} must have only one response per key"
        self.response = response
        return True

    def repeat(self) -> None:
        """Send the request until a response is final."""

        def send() -> bool:
            with contextlib.suppress(httpx.TransportError):
                found = self.world.client.request(
                    self.method, self.path, json=self.body, headers={"X-IDEMPOTENCY-KEY": self.key}
                )
                return self.receive(Response(found.status_code, found.content))
            return False

        until(send, seconds=120)


class Lane:
    """Connections to one of two API processes, to send requests to that process only."""

    def __init__(self, process: psutil.Process, other: psutil.Process, api_url: str) -> None:
        self.process = process
        url = urlsplit(api_url)
        assert url.hostname
        self._connections = [http.client.HTTPConnection(url.hostname, url.port, timeout=120) for _ in range(SLOTS)]
        # Both processes accept from the same socket, so suspend the other one while connecting.
        other.suspend()
        try:
            for connection in self._connections:
                connection.request("GET", "/health")
                connection.getresponse().read()
        finally:
            other.resume()
        ports = {connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr}
        assert {connection.sock.getsockname()[1] for connection in self._connections} <= ports

    def send(self, slot: int, call: Call) -> None:
        """Send a request, without waiting for its response."""
        headers = {"X-API-KEY": call.world.api_key, "X-IDEMPOTENCY-KEY": call.key, "Content-Type": "application/json"}
        with contextlib.suppress(OSError):  # a lost connection has no response either
            self._connections[slot].request(call.method, call.path, json.dumps(call.body), headers)

    def receive(self, slot: int) -> Response | None:
        """Wait for the response and return it. None if the connection was lost, so that the outcome is unknown."""
        try:
            response = self._connections[slot].getresponse()
            return Response(response.status, response.read())
        except (OSError, http.client.HTTPException):
            return None

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()
