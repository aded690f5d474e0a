"""Show any API call as a curl command and as a `psp` command."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from sandbox.domain.fields import EmptyBody
from sandbox.domain.scenario_engine import HEADER
from sandbox.http.curl import MERCHANT_KEY, NEW_KEY, OPERATOR_KEY, curl, json_body, uploaded_file
from sandbox.http.operation import Operation
from sandbox.http.psp_line import PspLine
from sandbox.http.psp_lines import psp_lines

DEFAULT_CLI_URL: Final = "http://127.0.0.1:8000"
"""The URL that `psp` calls unless it is told another."""
_KEYS: Final = {"public": (), "member": (MERCHANT_KEY,), "admin": (MERCHANT_KEY,), "operator": (OPERATOR_KEY,)}
_PAIR: Final = re.compile(r"(\w+)\[(.+)\]\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ShellCommands:
    """The commands that make an API call, for a POSIX shell. They read the keys from PSP_API_KEY and PSP_ADMIN_KEY."""

    curl: str
    psp: str
    """Empty if no `psp` command makes exactly this call.

    It may differ in what the API fills in the same way (idempotency key, defaults), and it may read more afterwards.
    """


class Commands:
    """Writes the commands for calls of these operations."""

    def __init__(self, operations: Sequence[Operation], public_url: str) -> None:
        """`public_url` is the URL of the API that the commands call."""
        self._operations = {operation.id: operation for operation in operations}
        self._url = public_url.rstrip("/")
        self._cli_url = "" if self._url == DEFAULT_CLI_URL else self._url
        self._lines = {operation.id: [PspLine(line) for line in psp_lines(operation)] for operation in operations}

    def of(
        self,
        operation_id: str,
        path: Mapping[str, str],
        query: Mapping[str, str],
        body: Any = None,
        scenario: str = "",
        merchant_id: str = "",
    ) -> ShellCommands:
        """Return the commands for a call. Empty query parameters are left out; the body of an upload is not shown.

        `scenario` is the value of the X-Sandbox-Scenario header, which creates payouts. With `merchant_id`, the `psp` command
        says which merchant's key it needs, and does nothing without one: on loopback, it would call as the demo merchant.
        Raises KeyError for an unknown operation or a missing path parameter.
        """
        operation = self._operations[operation_id]
        query = {name: value for name, value in query.items() if value != ""}
        body = None if operation.receive is not None else body
        # For `psp`, the header is an option like any other.
        with_scenario = {**query, "scenario": scenario} if scenario else query
        psp = self._psp(operation, path, with_scenario, body)
        if psp and merchant_id and MERCHANT_KEY in _KEYS[operation.access]:
            psp = f'PSP_API_KEY="${{PSP_API_KEY:?set it to a key of the merchant {merchant_id}}}" {psp}'
        return ShellCommands(self._curl(operation, path, query, body, scenario), psp)

    def _curl(self, operation: Operation, path: Mapping[str, str], query: Mapping[str, str], body: Any, scenario: str) -> str:
        url = self._url + operation.path.format(**{name: quote(path[name], safe="") for name in operation.path_parameters})
        if query:
            url += "?" + urlencode(query, quote_via=quote)
        arguments = list(_KEYS[operation.access])
        if operation.idempotency != "none":
            arguments.append(NEW_KEY)
        if scenario:
            arguments.append("-H " + shlex.quote(f"{HEADER}: {scenario}"))
        if operation.receive is not None:
            arguments += uploaded_file(operation.body_media_type)
        elif body is not None:
            arguments += json_body(body)
        return curl(operation.method, shlex.quote(url), *arguments)

    def _psp(self, operation: Operation, path: Mapping[str, str], query: Mapping[str, str], body: Any) -> str:
        fields = _fields(body)
        # A command sends an empty body rather than none, and changes at least one field.
        changes_nothing = operation.method == "PATCH" and operation.body is not EmptyBody and not body
        is_incomplete = operation.receive is None and (changes_nothing or (operation.requires_body and body is None))
        if fields is None or is_incomplete:
            return ""
        parameters = {**path, **_with_objects(query)}
        lines = self._lines.get(operation.id, ())
        return next((text for line in lines if (text := line.fill(parameters, fields, self._cli_url)) is not None), "")


def _fields(body: Any) -> Mapping[str, Any] | None:
    """Return a body's fields, or None if the body is not an object.

    The body of `reconcile_sales` is a list of sales with statuses. Its fields are the statuses, with the ids of their sales.
    """
    if isinstance(body, Mapping):
        return body
    if body is None:
        return {}
    if not isinstance(body, list) or not body:
        return None
    found: dict[str, list[Any]] = {}
    for item in body:
        if not isinstance(item, Mapping) or item.keys() != {"sale_id", "status"}:
            return None
        found.setdefault(item["status"], []).append(item["sale_id"])
    return found


def _with_objects(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the query with parameters such as `metadata[order]=7` as objects: `{"metadata": {"order": "7"}}`."""
    found: dict[str, Any] = {}
    for name, value in query.items():
        if pair := _PAIR.match(name):
            found.setdefault(pair[1], {})[pair[2]] = value
        else:
            found[name] = value
    return found
