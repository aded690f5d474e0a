"""Checks of a bundle's rows beyond their columns' types and the database's constraints. Pure.

A bundle can come from anywhere. Without these checks, a row that no request could have written would make a later request or a
worker fail.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any, Final

import msgspec

from sandbox.domain.enumerations import EVENT_TYPES
from sandbox.domain.errors import Problem
from sandbox.domain.idempotency import CALLBACK_PREFIX
from sandbox.domain.ids import is_uuid
from sandbox.domain.ledger import MERCHANT_ACCOUNTS, WALLET
from sandbox.domain.scenario_engine import Catalogue
from sandbox.http.body_errors import FieldProblem
from sandbox.http.faults.requests import COMMON, FaultBody, match_of
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.scenarios.rules import RuleBody, RuleStep, check_rule
from sandbox.webhooks.delivery.endpoint_health import StatusChange
from sandbox.webhooks.endpoints.requests import CreateEndpointBody, check_endpoint
from sandbox.webhooks.outbound.url_check import url_error

Row = Mapping[str, Any]
SEALED: Final = b"\x01"
"""Takes the place of a stored response that a bundle leaves out. A repeated request is then refused, not executed again."""

_ANYWHERE: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""A URL of another sandbox can be in a network that this one does not allow. Connecting to it is refused later."""
_REQUEST_ID: Final = re.compile(r"[\x20-\x7e]{0,200}\Z")
_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_KEY: Final = re.compile(rf"(?:{CALLBACK_PREFIX})?[\x20-\x7e]{{1,400}}\Z")
_LOCATION: Final = re.compile(r"/[!-~]{0,500}\Z")
_CREDIT: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?\Z")
_STORED: Final = frozenset({200, 201, 202, 204, 404, 409, 422})
_decode_endpoint: Final = msgspec.json.Decoder(CreateEndpointBody).decode
_decode_fault: Final = msgspec.json.Decoder(FaultBody).decode
_decode_rule: Final = msgspec.json.Decoder(RuleBody).decode


class _EventBody(msgspec.Struct):
    id: str
    type: str
    timestamp: str
    data: dict[str, Any]


class RowChecker:
    """Checks rows, one table at a time."""

    def __init__(self, catalogue: Catalogue, directory: Directory) -> None:
        """`catalogue` has the built-in scenarios, `directory` the banks and wallets."""
        self._catalogue = catalogue
        self._directory = directory
        self._checks: Mapping[str, Callable[[Row], Iterable[FieldProblem]]] = {
            "accounts": _account,
            "bulk_credit_items": _bulk_credit_item,
            "events": _event,
            "faults": _fault,
            "idempotency_keys": _idempotency_key,
            "payouts": self._payout,
            "scenario_rules": self._rule,
            "vendor_cursors": _cursor,
            "webhook_attempts": _attempt,
            "webhook_endpoints": _endpoint,
        }

    def check(self, table: str, row: Row) -> Iterator[FieldProblem]:
        """Yield the invalid columns of a row, each with a message that follows its name."""
        if not _REQUEST_ID.match(row.get("request_id") or ""):
            yield "request_id", "must be at most 200 printable ASCII characters"
        if not _TRACEPARENT.match(row.get("traceparent") or "00-" + "0" * 32 + "-" + "0" * 16 + "-00"):
            yield "traceparent", "must be a W3C traceparent"
        check = self._checks.get(table)
        if check is not None:
            yield from check(row)

    def _payout(self, row: Row) -> Iterator[FieldProblem]:
        yield from _must_be(row, "metadata", dict[str, str], "an object of strings")
        if row["path"] is None:
            if not self._catalogue.contains(row["scenario"]):
                yield "scenario", "must be a built-in scenario, or `path` must have its steps"
        else:
            yield from _must_be(row, "path", list[RuleStep], "the steps of a scenario")
        if row["step"] < 0:
            yield "step", "must not be negative"

    def _rule(self, row: Row) -> Iterator[FieldProblem]:
        parts = {"name": row["name"], "match": msgspec.Raw(row["match"].encode()), "steps": msgspec.Raw(row["steps"].encode())}
        yield from _problems("steps", lambda: check_rule(_decode_rule(msgspec.json.encode(parts)), self._directory))


def _account(row: Row) -> Iterator[FieldProblem]:
    kind, _, user_id = row["account"].partition(":")
    if row["account"] not in MERCHANT_ACCOUNTS and not (kind == WALLET and is_uuid(user_id)):
        yield "account", f"must be one of {', '.join(MERCHANT_ACCOUNTS)}, or {WALLET}:<user id>"


def _bulk_credit_item(row: Row) -> Iterator[FieldProblem]:
    if row["status"] != "INVALID":
        if not _CREDIT.match(row["amount"]):
            yield "amount", "must be an amount, because the row is not INVALID"
        if not is_uuid(row["user_id"]):
            yield "user_id", "must be a UUID, because the row is not INVALID"


def _event(row: Row) -> Iterator[FieldProblem]:
    if row["type"] not in EVENT_TYPES:
        yield "type", "must be a type of event"
    try:
        body = msgspec.json.decode(row["body"], type=_EventBody)
    except (msgspec.MsgspecError, RecursionError) as error:
        yield "body", f"must be the JSON of an event: {error}"
        return
    if (body.id, body.type) != (str(row["id"]), row["type"]):
        yield "body", "must have the event's id and type"


def _fault(row: Row) -> Iterator[FieldProblem]:
    errors = [
        *_must_be(row, "match", dict[str, str], "an object of strings"),
        *_must_be(row, "parameters", dict[str, float | str], "an object of numbers and texts"),
    ]
    yield from errors
    if not errors:
        parameters = msgspec.json.decode(row["parameters"])
        body = {name: row[name] for name in ("target", "kind", "probability")} | {"match": msgspec.Raw(row["match"].encode())}
        if parameters.keys() & {*COMMON, "kind"}:
            yield "parameters", "must have the parameters of its kind"
        else:
            yield from _problems("parameters", lambda: match_of(_decode_fault(msgspec.json.encode(parameters | body))))


def _idempotency_key(row: Row) -> Iterator[FieldProblem]:
    if not _KEY.match(row["key"]):
        yield "key", "must be 1 to 400 printable ASCII characters"
    if len(row["fingerprint"]) != 32:
        yield "fingerprint", "must be a SHA-256"
    if row["status"] not in _STORED:
        yield "status", "must be the status of a stored response"
    if row["location"] is not None and not _LOCATION.match(row["location"]):
        yield "location", "must be a path"
    if row["body"] not in (b"", SEALED):
        try:
            msgspec.json.decode(row["body"])
        except (msgspec.MsgspecError, RecursionError):
            yield "body", "must be the text of a JSON response, or null"


def _cursor(row: Row) -> Iterator[FieldProblem]:
    if row["url"] is not None:
        yield from _url(row)


def _attempt(row: Row) -> Iterator[FieldProblem]:
    yield from _must_be(row, "response_headers", dict[str, str], "an object of strings")
    yield from _must_be(row, "request_headers", dict[str, str], "an object of strings")


def _endpoint(row: Row) -> Iterator[FieldProblem]:
    yield from _must_be(row, "status_history", list[StatusChange], "a list of status changes")
    fields = {name: row[name] for name in CreateEndpointBody.__struct_fields__ if row[name] is not None}
    for name in ("filters", "custom_signing"):
        if name in fields:
            fields[name] = msgspec.Raw(fields[name].encode())
    errors = list(_url(row))
    yield from errors
    if not errors:
        yield from _problems("url", lambda: check_endpoint(_decode_endpoint(msgspec.json.encode(fields)), _ANYWHERE))


def _url(row: Row) -> Iterator[FieldProblem]:
    url = row["url"]
    error = url_error(url, _ANYWHERE) if url.isascii() and url.isprintable() and " " not in url else "must be a URL in ASCII"
    if error is not None:
        yield "url", error


def _must_be(row: Row, column: str, kind: Any, what: str) -> Iterator[FieldProblem]:
    if row[column] is not None:
        try:
            msgspec.json.decode(row[column], type=kind)
        except (msgspec.MsgspecError, RecursionError):
            yield column, f"must be {what}"


def _problems(column: str, check: Callable[[], object]) -> Iterator[FieldProblem]:
    """Yield the errors of a request body that is rebuilt from a row. Errors of the whole body are those of `column`."""
    try:
        check()
    except (msgspec.MsgspecError, RecursionError) as error:
        yield column, f"must be as a request would write it: {error}"
    except Problem as problem:
        yield from problem.errors
