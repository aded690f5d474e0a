"""What a test did with its application, recorded so that a failure can be repeated. See `application_replay.py`."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.testing.webhooks import Inbox, host_seconds

if TYPE_CHECKING:
    import httpx

FORMAT: Final = "psp.application"
BUNDLE_END: Final = ".psp-world.json"
_END: Final = ".psp-application.json"
CALL: Final = "call"
ENDPOINTS: Final = "/api/v1/webhook-endpoints"
_MAX_STEPS: Final = 1000
_MAX_TEXT: Final = 4000
"""Characters of a body, as in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the test did: a request to its application with the answer, a call of the sandbox, or the end of a process."""

    at: str
    """When it began. All times are the host's, and their texts have the order of the times."""
    method: str
    """The method of the request; or `kill`, `restart` or `stop`; or CALL, with the call's idempotency key as `path`."""
    path: str = ""
    content_type: str = ""
    body: str = ""
    status: int | None = None
    answer: str = ""
    until: str = ""
    """When it ended; of a call of the sandbox, nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A webhook that arrived, and the application's answer."""

    at: str
    type: str
    payout_id: str | None
    version: int
    status: int | None
    answer: str = ""
    until: str = ""
    """When the application had handled it, if it had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How the test, rather than a fixture, started an application."""

    fixture: str
    """`live_app` or `live_process`."""
    target: str | None
    """What it was given, as Python code; None if that cannot be written down."""
    module: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Recording:
    """The steps of one test. Thread-safe."""

    steps: list[Step] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    """The applications that the test itself has started: those of its fixtures are forgotten when it begins."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, method: str, **fields: Any) -> None:
        """Add a step, unless there are too many."""
        with self._lock:
            if len(self.steps) < _MAX_STEPS:
                self.steps.append(Step(**{"at": host_now(), "method": method, **fields}))

    @contextlib.contextmanager
    def during(self, method: str) -> Iterator[None]:
        """Add as a step what happens in the block, unless it raises an exception."""
        at = host_now()
        yield
        self.add(method, at=at, until=host_now())

    def add_call(self, request: "httpx.Request") -> None:
        """Add a call of the sandbox, if it changes something. The journal has it, by its idempotency key.

        Calls that lead webhooks to a URL are left out: in every run, the plugin itself leads them to the application.
        """
        key = request.headers.get("X-IDEMPOTENCY-KEY")
        is_repeated = bool(self.steps) and self.steps[-1].path == key  # a repeated try is one call
        if key is None or is_repeated:
            return
        leads = request.url.path.startswith(ENDPOINTS) and (request.method == "DELETE" or b'"url"' in _read(request))
        if not leads:
            self.add(CALL, path=key)

    def client(self, url: str) -> "httpx.Client":
        """Return an HTTP client for an application, whose requests are recorded."""
        import httpx

        recording = self

        class Client(httpx.Client):
            def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
                at = host_now()
                response = super().send(request, stream=stream, **options)
                if not stream:  # the caller reads it, perhaps never to its end
                    recording.add(
                        request.method, at=at, path=request.url.raw_path.decode(), body=_text(_read(request)),
                        content_type=request.headers.get("content-type", ""), status=response.status_code,
                        answer=_text(response.content), until=host_now(),
                    )  # fmt: skip
                return response

        return Client(base_url=url, timeout=30, transport=httpx.HTTPTransport(), trust_env=False)


def _read(request: "httpx.Request") -> bytes:
    import httpx

    try:
        return request.content
    except httpx.RequestNotRead:  # an upload from a stream
        return b""


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")[:_MAX_TEXT]


def host_now() -> str:
    """Return the host's time as text, even while a test has frozen this process's clock."""
    return as_text(datetime.fromtimestamp(host_seconds(), UTC))


def as_text(moment: datetime) -> str:
    """Return a time in UTC as text. The texts of later times are greater."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def arrivals_of(inbox: Inbox) -> list[Arrival]:
    """Return what has arrived so far. What is not a webhook has no type."""
    return [
        Arrival(
            at=as_text(datetime.fromtimestamp(one.at, UTC)),
            type=one.event.get("type", ""),
            payout_id=one.event.get("data", {}).get("id"),
            version=one.event.get("data", {}).get("version", 0),
            status=one.status,
            answer=_text(one.answer),
            until="" if one.answered_at is None else as_text(datetime.fromtimestamp(one.answered_at, UTC)),
        )
        for one in inbox.all()[:_MAX_STEPS]
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A failed test, as it is saved next to the bundle of its world."""

    test: str
    failure: str
    """The end of the report: what the test asserted."""
    fixtures: Sequence[str]
    """The fixtures that the test asks for."""
    options: Mapping[str, bool]
    """What the test's teardown accepts."""
    steps: Sequence[Step]
    starts: Sequence[Start]
    arrivals: Sequence[Arrival]

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({"format": FORMAT, "version": 1, **asdict(self)}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Recorded":
        """Read it. Raises ValueError if it is something else."""
        found = json.loads(text)
        if not isinstance(found, dict) or found.pop("format", None) != FORMAT or found.pop("version", None) != 1:
            raise ValueError("This is not the recording of a failed test.")
        try:
            return cls(
                steps=[Step(**one) for one in found.pop("steps")],
                starts=[Start(**one) for one in found.pop("starts")],
                arrivals=[Arrival(**one) for one in found.pop("arrivals")],
                **found,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"This is not the recording of a failed test: {error}") from error


def file_beside(bundle: Path) -> Path:
    """Return the file of a failed test that belongs to a bundle."""
    return bundle.with_name(bundle.name.removesuffix(BUNDLE_END) + _END)


def read_beside(bundle: Path) -> Recorded | None:
    """Return the failed test whose world a bundle has, or None. Raises OSError, or ValueError if its file is damaged."""
    file = file_beside(bundle)
    return Recorded.from_json(file.read_text("utf-8")) if file.name != bundle.name and file.exists() else None
