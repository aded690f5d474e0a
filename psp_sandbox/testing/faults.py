"""Faults for the length of a `with` block."""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from psp_sandbox.testing.options import UsageError

if TYPE_CHECKING:
    from psp_sandbox.client import Client
    from psp_sandbox.client.models import Fault as FaultState

API_KINDS: Final = ("latency", "error", "rate_limit", "connection_reset", "slow_after_commit", "truncated_body")
WEBHOOK_KINDS: Final = (
    "drop", "duplicate", "delay", "reorder", "stale_timestamp", "wrong_key", "tampered_body", "truncated_body",
)  # fmt: skip
SPOILING_KINDS: Final = ("stale_timestamp", "wrong_key", "tampered_body", "truncated_body")
"""Kinds of faults that make a webhook invalid."""
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PREFIXES: Final = ("/api/", "/vendor/", "/aggregator/")


def fault_body(kind: str, on: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return the body of `POST /faults`. See `World.fault`. Raises UsageError."""
    if kind not in API_KINDS and kind not in WEBHOOK_KINDS:
        kinds = ", ".join(dict.fromkeys((*API_KINDS, *WEBHOOK_KINDS)))
        raise UsageError(f"There is no fault {kind!r}. On the API and on webhooks there are: {kinds}.")
    target, match = _read_on(kind, on)
    match |= options.pop("match", {})
    if "reference" in options:
        match["reference"] = options.pop("reference")
    return {"target": target, "kind": kind, **({"match": match} if match else {}), **options}


def _read_on(kind: str, on: str | None) -> tuple[str, dict[str, Any]]:
    match: dict[str, Any] = {}
    if on is None:
        target = "api" if kind in API_KINDS else "webhooks"
    elif on == "webhooks" or (" " not in on and "/" not in on and ("." in on or "*" in on)):
        target = "webhooks"
        if on != "webhooks":
            match["event_type"] = on
    else:
        target = "api"
        method, _, path = on.rpartition(" ")
        if (method and method not in _METHODS) or not path.startswith("/"):
            raise UsageError(
                f"on={on!r} is neither a request such as 'POST /payouts', nor 'webhooks', nor an event type such as "
                "'payout.succeeded' or 'payout.*'."
            )
        if method:
            match["method"] = method
        match["path"] = path if path.startswith(_PREFIXES) else f"/api/v1{path}"
    kinds = API_KINDS if target == "api" else WEBHOOK_KINDS
    if kind not in kinds:
        raise UsageError(
            f"A fault {kind!r} cannot happen on {on!r}: it is one of {'webhooks' if target == 'api' else 'API calls'}."
        )
    return target, match


class Fault:
    """A fault that is active inside a `with` block.

    `hits` counts how often it took effect, `matches` how often it could have. Both can be read inside the block and after it.
    """

    def __init__(self, client: "Client", body: dict[str, Any], on_end: Callable[["Fault"], None], *, allow_unhit: bool) -> None:
        self.kind: str = body["kind"]
        self.target: str = body["target"]
        self.allow_unhit = allow_unhit
        self._client = client
        self._body = body
        self._on_end = on_end
        self._shown: FaultState | None = None
        self._is_active = False

    @property
    def id(self) -> str:
        """The fault's id. Raises UsageError outside of the block."""
        if self._shown is None:
            raise UsageError("The fault does not exist yet. Use it as `with psp.fault(...) as fault:`.")
        return self._shown.id

    @property
    def hits(self) -> int:
        """How often it took effect."""
        found = self._read()
        return found.hits if found else 0

    @property
    def matches(self) -> int:
        """How many requests or deliveries matched, including those that its probability or count spared."""
        found = self._read()
        return found.matches if found else 0

    @property
    def hit(self) -> bool:
        """Whether it took effect at least once."""
        return self.hits > 0

    def __enter__(self) -> Self:
        self._shown = self._client.faults.create(**self._body)
        self._is_active = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """End it before the block does. Further calls have no effect."""
        if self._is_active:
            self._read()
            self._is_active = False
            self._client.faults.delete(self.id)
            self._on_end(self)

    def _read(self) -> "FaultState | None":
        if self._is_active:
            if self.target == "webhooks":
                self._client.drain()  # webhooks of earlier events may still be on their way
            self._shown = self._client.faults.get(self.id)
        return self._shown

    def __repr__(self) -> str:
        return f"<fault {self.kind} on {self.describe()}>"

    def describe(self) -> str:
        """Return what it applies to, such as "POST /api/v1/payouts"."""
        match = self._body.get("match", {})
        return " ".join(str(value) for value in match.values()) or self.target
