"""Call API operations from within the process: with the rights of a session, and all checks of the API."""

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode
from weakref import WeakValueDictionary

import msgspec
from litestar.types import ASGIApp

from sandbox.domain.errors import Problem
from sandbox.http.operation import JSON, MULTIPART, Operation
from sandbox.http.request import ANONYMOUS, Caller, SignedIn
from sandbox.server.console.recording import MADE_BY

_BOUNDARY: Final = "psp-console-file"
_PREVIEWS: Final = uuid.UUID("7b1c1d0e-6f0f-5d4b-9a43-3a0d6a8f2c11")


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call of an operation: its path parameters, query, JSON body, and file (for operations that take a form)."""

    operation_id: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None
    file: bytes | None = None
    key: str | None = None
    """The idempotency key; None for a new one."""
    is_preview: bool = False
    """Whether a page makes the call while a form is being filled in. It is then not in the journal, and has a key only if the
    operation requires one: the same key for the same body."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The response to a call. `data` is the decoded JSON body, None without one."""

    status: int
    data: Any
    caller: Caller

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


class Refused(Exception):
    """The API refused a call. `problem` is the response's body."""

    def __init__(self, reply: Reply) -> None:
        self.problem: dict[str, Any] = reply.data if isinstance(reply.data, dict) else {}
        self.status = reply.status
        super().__init__(self.problem.get("code", str(reply.status)))


class ApiCalls:
    """Calls the operations of this process's API."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        """`operations` may have those of dialects too, which are read without the dialect's key."""
        self._operations = {operation.id: operation for operation in operations}
        self._app: ASGIApp | None = None
        self._logged: ASGIApp | None = None
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """A lock for each merchant's idempotency key that is in use."""

    def connect(self, app: ASGIApp, logged: ASGIApp) -> None:
        """Set the API's application, without and with the journal of requests. Must be called before the first call."""
        self._app, self._logged = app, logged

    def operation(self, operation_id: str) -> Operation:
        """Return an operation. Raises NOT_FOUND."""
        found = self._operations.get(operation_id)
        if found is None:
            raise Problem("NOT_FOUND", "The API has no such operation.")
        return found

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """Return the operation that a request calls, with its path parameters; None if there is none."""
        parts = path.split("/")
        for operation in self._operations.values():
            names = operation.path.split("/")
            if operation.method != method or len(names) != len(parts) or operation.dialect:
                continue
            pairs = list(zip(names, parts, strict=True))
            if all(name == part or name.startswith("{") for name, part in pairs):
                return operation, {name[1:-1]: part for name, part in pairs if name.startswith("{")}
        return None

    async def send(self, call: ApiCall, signed_in: SignedIn | None, headers: Mapping[str, str] | None = None) -> Reply:
        """Call an operation, and return its response, whatever its status. `headers` are sent too, such as an API key's.

        Writes are in the journal, like any API call; reads are not, because each page makes several.
        """
        operation = self.operation(call.operation_id)
        if any("/" in value or not value for value in call.path.values()):
            raise Problem("NOT_FOUND")
        is_read = operation.method == "GET"
        app = self._app if is_read or call.is_preview else self._logged
        assert app is not None, "connect was not called"
        request_id = str(uuid.uuid4())
        sent = {"accept": JSON, "user-agent": MADE_BY, "x-request-id": request_id, **(headers or {})}
        content = _content(call, operation, sent)
        if call.is_preview and operation.idempotency == "required":
            sent["x-idempotency-key"] = f"preview-{uuid.uuid5(_PREVIEWS, f'{operation.id} {content.hex()}')}"
        elif operation.idempotency != "none" and not call.is_preview:
            sent["x-idempotency-key"] = call.key or str(uuid.uuid4())
        query = urlencode([(name, value) for name, value in call.query.items() if value != ""])
        state: dict[str, Any] = {"request_id": request_id, "method": operation.method, "signed_in": signed_in}
        scope: Any = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": operation.method,
            "path": operation.path.format(**call.path),
            "raw_path": operation.path.format(**{name: quote(value, safe="") for name, value in call.path.items()}).encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("utf-8", "replace")) for name, value in sent.items()],
            "client": None,
            "server": None,
            "state": state,
        }
        collected = _Collector(content)
        # A form that is submitted twice, or a preview that is asked for twice, must show the first one's result. The API
        # would refuse the second with IDEMPOTENCY_KEY_IN_FLIGHT, which no reader of a page can act on.
        merchant_id = "" if signed_in is None else signed_in.caller.merchant_id
        turn = f"{merchant_id} {sent.get('x-idempotency-key', request_id)}"
        async with self._turns.setdefault(turn, asyncio.Lock()):
            await app(scope, collected.receive, collected.send)
        request = state.get("request")
        return Reply(collected.status, collected.data(), ANONYMOUS if request is None else request.caller)


class _Collector:
    """The client's side of a call: sends the content, and collects the response."""

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content
        self._chunks: list[bytes] = []
        self._is_json = False
        self.status = 0

    async def receive(self) -> Any:
        if self._content is not None:
            content, self._content = self._content, None
            return {"type": "http.request", "body": content, "more_body": False}
        await asyncio.Event().wait()  # this client never disconnects
        return None

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kinds = [value for name, value in message["headers"] if name == b"content-type"]
            self._is_json = bool(kinds) and b"json" in kinds[0]
        else:
            self._chunks.append(message.get("body", b""))

    def data(self) -> Any:
        content = b"".join(self._chunks)
        if not self._is_json:
            return content.decode("utf-8", "replace") if content else None
        return msgspec.json.decode(content) if content else None


def _content(call: ApiCall, operation: Operation, headers: dict[str, str]) -> bytes:
    """Return the body of a request, and add its headers."""
    if operation.receive is not None and operation.body_media_type != MULTIPART:
        headers["content-type"] = operation.body_media_type
        return call.file or b""
    if operation.receive is not None:
        headers["content-type"] = f"{operation.body_media_type}; boundary={_BOUNDARY}-{call.key}"
        edge = f"--{_BOUNDARY}-{call.key}"
        head = f'{edge}\r\nContent-Disposition: form-data; name="file"; filename="upload.csv"\r\n\r\n'
        return head.encode() + (call.file or b"") + f"\r\n{edge}--\r\n".encode()
    if operation.body is None:
        return b""
    headers["content-type"] = JSON
    # Not msgspec, which refuses whole numbers of more than 64 bits. The API must report those itself.
    return json.dumps({} if call.body is None else call.body).encode()
