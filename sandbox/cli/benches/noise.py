"""Kinds of noise: what busy merchants send while another one is measured. All requests are prepared as bytes."""

import itertools
import json
import secrets
import socket
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.cli.benches.database import Database
from sandbox.cli.benches.preload import preload
from sandbox.cli.benches.stack import Merchant, Stack, call, create_endpoint, payout_body
from sandbox.payouts.requests import MAX_BATCH_SIZE
from sandbox.worlds.bundles.format import FORMAT, MEDIA_TYPE, VERSION

_UNIQUE: Final = b"@@@@@@@@@@@@@@@@"
"""Replaced in each request, head and body, by a text of the same length that no other request has."""
_RUN: Final = secrets.token_hex(4)
_NUMBERS: Final = itertools.count()
_JSON: Final = "application/json"

_NESTED_BRACKETS: Final = 200_000
_UNKNOWN_FIELDS: Final = 5_000
_BULK_ROWS: Final = 500_000
_GARBAGE_BYTES: Final = 1_500_000
_STORED_PAYOUTS: Final = 5_000
"""Payouts of a merchant that searches: as many as one page of a search reads."""
_SNAPSHOT_PAYOUTS: Final = 2_000
_JOURNAL_ENTRIES: Final = 1_000
_FAILING_ENDPOINTS: Final = 12
_PAYOUTS_TOGETHER: Final = 300


@dataclass(frozen=True, slots=True)
class Response:
    """The parts of a response that a noisy merchant needs."""

    status: int
    body: bytes


class Request:
    """A request that can be sent any number of times."""

    def __init__(self, head: bytes, body: bytes = b"") -> None:
        self._head = head
        self._body = body
        self._is_body_unique = _UNIQUE in body

    def encode(self) -> bytes:
        """Return its bytes, different in each call."""
        unique = f"{_RUN}{next(_NUMBERS) % 100_000_000:08d}".encode()
        body = self._body.replace(_UNIQUE, unique) if self._is_body_unique else self._body
        return self._head.replace(_UNIQUE, unique) + body


Script = Generator[Request, Response, None]
"""The requests of one connection. It yields them one after another, and gets the response to each."""


@dataclass(slots=True)
class Site:
    """The sandbox, the noisy merchants and their servers."""

    stack: Stack
    merchants: list[Merchant]
    connections: int
    """Connections of each merchant."""
    servers: list[tuple[socket.socket, int]] = field(default_factory=list)
    """Listening sockets, each with the status that answers every request to it. The noise's process serves them."""
    refusing: list[socket.socket] = field(default_factory=list)
    """Bound sockets that do not listen, so that connections to them are refused."""

    def request(self, merchant: Merchant, method: str, path: str, body: bytes = b"", media_type: str = _JSON) -> Request:
        """Return a request of a merchant, with an idempotency key if it is a POST or PUT."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self.stack.api_url.partition('://')[2]}\r\nX-API-KEY: {merchant.api_key}\r\n"
        )
        if method in ("POST", "PUT"):
            head += f"X-IDEMPOTENCY-KEY: {_UNIQUE.decode()}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        return Request(head.encode() + b"\r\n", body)

    def serve(self, status: int) -> str:
        """Open a receiver that answers with a status, and return its URL."""
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.servers.append((listening, status))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    def refuse(self) -> str:
        """Return a URL that refuses connections."""
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        self.refusing.append(bound)
        return f"http://127.0.0.1:{bound.getsockname()[1]}"

    def everywhere(self, script: Callable[[Merchant], Script]) -> list[Script]:
        """Return a script for each connection."""
        return [script(merchant) for merchant in self.merchants for _ in range(self.connections)]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of noise."""

    expected: frozenset[int]
    """At least one response must have one of these statuses. Otherwise the noise did not have its effect."""
    prepare: Callable[[Site], list[Script]]
    """Stores what the noise needs, and returns what each connection sends."""
    fill: Callable[[Site], list[Script]] = field(default=lambda site: [])
    """Finite scripts that are run first, outside the measurement."""
    with_webhooks: bool = False
    """Measure the delay of webhooks, and not the latency of creates."""


def _repeat(*requests: Request) -> Script:
    following = itertools.cycle(requests)
    while True:
        yield next(following)


def _times(count: int, request: Request) -> Script:
    for _ in range(count):
        yield request


def _simple(method: str, path: str, *bodies: bytes, media_type: str = _JSON) -> Callable[[Site], list[Script]]:
    """Return a preparation for requests that are the same for all merchants."""

    def prepare(site: Site) -> list[Script]:
        return site.everywhere(
            lambda merchant: _repeat(*(site.request(merchant, method, path, body, media_type) for body in bodies))
        )

    return prepare


def _payout(reference: str, **fields: object) -> dict[str, Any]:
    return payout_body(reference) | fields


def _batch(count: int) -> bytes:
    return _encode({"payouts": [_payout(f"{_UNIQUE.decode()}-{number}") for number in range(count)]})


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _wrong_items() -> bytes:
    item = {
        "merchant_reference": 1,
        "amount": True,
        "dest_type": "CASH",
        "bank_code": 2,
        "account_number": [],
        "account_title": {},
        "metadata": "none",
        "requires_approval": "no",
    }
    return _encode({"payouts": [item] * MAX_BATCH_SIZE})


def _unknown_fields(count: int) -> bytes:
    return _encode(_payout("refused") | {f"unknown_{number}": "x" * 20 for number in range(count)})


def _garbage() -> tuple[bytes, bytes]:
    """Return two bodies that are JSON but not a world: one with the form of a bundle, and one without any."""
    row = ["x" * 36, 1, None, {"a": []}, "1.00"]
    rows = [row] * (_GARBAGE_BYTES // len(_encode(row)))
    bundle = {
        "format": FORMAT,
        "version": VERSION,
        "tables": {"payouts": {"columns": ["id", "a", "b", "c", "d"], "rows": rows}},
    }
    return _encode(bundle), b"[" + b"1," * (_GARBAGE_BYTES // 2) + b"1]"


def _bulk(site: Site) -> list[Script]:
    boundary = "bench-neighbors"
    rows = "uuid,amount\n" + "not-a-user,1.00\n" * _BULK_ROWS
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="rows.csv"\r\n\r\n'
    body = f"{part}{rows}\r\n--{boundary}--\r\n".encode()
    media_type = f"multipart/form-data; boundary={boundary}"
    return _simple("POST", "/api/v1/wallet/bulk-credit", body, media_type=media_type)(site)


def _create_then_delete(site: Site, path: str, body: bytes) -> list[Script]:
    """Each connection creates a resource and deletes it, again and again."""

    def script(merchant: Merchant) -> Script:
        create = site.request(merchant, "POST", path, body)
        while True:
            response = yield create
            if response.status == 201:
                yield site.request(merchant, "DELETE", f"{path}/{json.loads(response.body)['id']}")

    return site.everywhere(script)


def _endpoints(site: Site) -> list[Script]:
    return _create_then_delete(site, "/api/v1/webhook-endpoints", _encode({"url": site.refuse()}))


def _snapshots(site: Site) -> list[Script]:
    _store_payouts(site, _SNAPSHOT_PAYOUTS)
    return _create_then_delete(site, "/sandbox/v1/snapshots", b"{}")


def _restore(site: Site) -> list[Script]:
    _store_payouts(site, _SNAPSHOT_PAYOUTS)
    paths = {}
    for merchant in site.merchants:
        taken = call(site.stack, "POST", "/sandbox/v1/snapshots", {"X-API-KEY": merchant.api_key}, {})
        paths[merchant] = f"/sandbox/v1/snapshots/{taken['id']}/restore"
    return site.everywhere(lambda merchant: _repeat(site.request(merchant, "POST", paths[merchant], b"{}")))


def _search(site: Site) -> list[Script]:
    _store_payouts(site, _STORED_PAYOUTS)
    # As the console's page of payouts does: a text that nothing contains, and one that all references contain.
    paths = [f"/api/v1/payouts?limit=25&q={text}" for text in ("nothing+like+this", "-0")]
    return site.everywhere(lambda merchant: _repeat(*(site.request(merchant, "GET", path) for path in paths)))


def _fill_journal(site: Site) -> list[Script]:
    # The journal keeps the first 4000 bytes of a body.
    body = _unknown_fields(120)
    return [_times(_JOURNAL_ENTRIES, site.request(merchant, "POST", "/api/v1/payouts", body)) for merchant in site.merchants]


def _journal(site: Site) -> list[Script]:
    paths = [f"/sandbox/v1/requests?limit=100{text}" for text in ("", "&q=nothing+like+this")]
    return site.everywhere(lambda merchant: _repeat(*(site.request(merchant, "GET", path) for path in paths)))


def _certify(site: Site) -> list[Script]:
    secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="  # noqa: S105 -- of a receiver that does not verify
    return _simple("POST", "/sandbox/v1/receiver-tests", _encode({"url": site.serve(200), "secret": secret}))(site)


def _webhooks(site: Site) -> list[Script]:
    """One merchant whose endpoints all fail, half by refused connections and half by 503, creates its payouts together."""
    merchant = site.merchants[0]
    failing = (site.refuse(), site.serve(503))
    for number in range(_FAILING_ENDPOINTS):
        create_endpoint(site.stack, merchant, f"{failing[number % 2]}/{number}")
    return [_times(1, site.request(merchant, "POST", "/api/v1/payouts/batch", _batch(_PAYOUTS_TOGETHER)))]


def _store_payouts(site: Site, count: int) -> None:
    database = Database(site.stack.database_url)
    for merchant in site.merchants:
        preload(database, merchant, count, lambda stored: None)


_METADATA: Final = {f"key-{number:02d}-".ljust(64, "k"): "v" * 500 for number in range(20)}

KINDS: Final[Mapping[str, Kind]] = {
    "creates": Kind(frozenset({201}), _simple("POST", "/api/v1/payouts", _encode(_payout(_UNIQUE.decode())))),
    "metadata": Kind(
        frozenset({201}), _simple("POST", "/api/v1/payouts", _encode(_payout(_UNIQUE.decode(), metadata=_METADATA)))
    ),
    "batches": Kind(frozenset({200}), lambda site: _simple("POST", "/api/v1/payouts/batch", _batch(MAX_BATCH_SIZE))(site)),
    "wrong-items": Kind(frozenset({200}), lambda site: _simple("POST", "/api/v1/payouts/batch", _wrong_items())(site)),
    "nested": Kind(
        frozenset({400}),
        _simple("POST", "/api/v1/payouts/batch", b'{"payouts":[' + b"[" * _NESTED_BRACKETS + b"]" * _NESTED_BRACKETS + b"]}"),
    ),
    "refused": Kind(frozenset({400}), lambda site: _simple("POST", "/api/v1/payouts", _unknown_fields(_UNKNOWN_FIELDS))(site)),
    "journal": Kind(frozenset({200}), _journal, fill=_fill_journal),
    "search": Kind(frozenset({200}), _search),
    "bulk": Kind(frozenset({202}), _bulk),
    "endpoints": Kind(frozenset({201}), _endpoints),
    "snapshots": Kind(frozenset({201}), _snapshots),
    "restore": Kind(frozenset({200}), _restore),
    "imports": Kind(
        frozenset({400}), lambda site: _simple("PUT", "/sandbox/v1/world", *_garbage(), media_type=MEDIA_TYPE)(site)
    ),
    "certify": Kind(frozenset({202}), _certify),
    "webhooks": Kind(frozenset({200}), _webhooks, with_webhooks=True),
}
"""All kinds, by the name that `--kinds` takes."""


def parse_kinds(text: str) -> list[str]:
    """Parse names of kinds, separated by commas. Raises ValueError."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in KINDS:
            raise ValueError(f"{name!r} is not a kind of noise. Choose from: {', '.join(KINDS)}.")
    return names
