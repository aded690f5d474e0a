"""Measure the phases of one HTTP call."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """How long each phase of an attempt took, in milliseconds.

    A phase that did not happen is null. A reused connection has no `dns_ms`, `connect_ms` or `tls_ms`, a numeric address no
    `dns_ms`, and plain HTTP no `tls_ms`. The phase in which an attempt failed is the last one that is not null.
    """

    dns_ms: Annotated[
        float | None,
        Meta(description="The lookup of the host name; close to 0 if the addresses are still known from a recent call."),
    ]
    connect_ms: Annotated[
        float | None,
        Meta(description="From the first try to connect until the TCP connection is open, over all addresses of the host."),
    ]
    tls_ms: Annotated[float | None, Meta(description="The TLS handshake.")]
    first_byte_ms: Annotated[
        float | None, Meta(description="From writing the request until the head of the response has arrived.")
    ]
    total_ms: Annotated[int, Meta(description="The whole attempt, until the response's body has ended, rounded up.")]


NO_TIMINGS: Final = Timings(dns_ms=None, connect_ms=None, tls_ms=None, first_byte_ms=None, total_ms=0)
"""Nothing was sent."""


class Stopwatch:
    """The times of one call, from `perf_counter`. Each is None until its moment comes.

    Calls on a reused connection set only `connected_at` and `responded_at`.
    """

    __slots__ = ("connected_at", "opened_at", "resolved_at", "responded_at", "started_at", "tcp_at")

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.resolved_at: float | None = None
        """The addresses are known."""
        self.opened_at: float | None = None
        """The first socket is open, not yet connected."""
        self.tcp_at: float | None = None
        """The TCP connection is open; with TLS, the handshake begins."""
        self.connected_at: float | None = None
        """The connection is ready for the request."""
        self.responded_at: float | None = None
        """The head of the response has arrived."""

    def timings(self, ended_at: float, total_ms: int, *, looks_up: bool, is_tls: bool) -> Timings:
        """Return the phases of a call that ended at `ended_at`.

        `looks_up` is whether a new connection needs a lookup, and `is_tls` whether it needs a TLS handshake.
        """
        connected, resolved = self.connected_at, self.resolved_at
        first_byte = None if connected is None else _milliseconds(connected, self.responded_at or ended_at)
        if connected is not None and resolved is None:
            return Timings(dns_ms=None, connect_ms=None, tls_ms=None, first_byte_ms=first_byte, total_ms=total_ms)
        opened, tcp = self.opened_at, self.tcp_at
        return Timings(
            dns_ms=_milliseconds(self.started_at, resolved or ended_at) if looks_up else None,
            connect_ms=None if opened is None else _milliseconds(opened, tcp or ended_at),
            tls_ms=None if tcp is None or not is_tls else _milliseconds(tcp, connected or ended_at),
            first_byte_ms=first_byte,
            total_ms=total_ms,
        )


def stored(record: Mapping[str, Any]) -> Timings:
    """Return the timings of a stored attempt. Its phases have 32 bits, so round away what the conversion added."""
    phases = (record["dns_ms"], record["connect_ms"], record["tls_ms"], record["first_byte_ms"])
    dns, connect, tls, first_byte = (None if phase is None else round(phase, 2) for phase in phases)
    return Timings(dns_ms=dns, connect_ms=connect, tls_ms=tls, first_byte_ms=first_byte, total_ms=record["duration_ms"])


def _milliseconds(start: float, end: float) -> float:
    # Rounded down, so the phases never add up to more than the total.
    return int((end - start) * 100_000) / 100
