"""Adjust generated requests where JSON Schema cannot express what the API accepts. Schemathesis loads this for `.ci/contract`.

Only values that are valid by the schema are changed, so that a request that is meant to be invalid stays invalid.
"""

import base64
import itertools
import os
import re
import threading
from typing import Any, Final

import schemathesis
from schemathesis.core.parameters import ParameterLocation

from sandbox.domain.ids import MAX_ID
from sandbox.payouts.directory.loader import load_directory
from tests.harness.iban import make_iban

_PROTECTED: Final = frozenset(os.environ.get("CONTRACT_PROTECTED", "").split())
"""Ids of the merchants and keys that existed before the run, including its own keys: these must not be deleted."""
_NOBODY: Final = "00000000-0000-7000-8000-000000000000"
_CURSOR: Final = base64.urlsafe_b64encode(MAX_ID.encode()).decode()
_IBAN: Final = re.compile(r"PK[0-9]{2}[A-Z]{4}([A-Z0-9]{16})")
_KEY: Final = "X-IDEMPOTENCY-KEY"

_lock: Final = threading.Lock()
_numbers: Final = itertools.count(1)
_used: Final[set[tuple[str, str]]] = set()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Change a generated request before it is sent."""
    for name, value in (case.path_parameters or {}).items():
        # The problems of a batch have its path as their instance; schemathesis mistakes its "batch" for an id.
        if value in _PROTECTED or value == "batch":
            case.path_parameters[name] = _NOBODY
    if case.headers and _KEY in case.headers and _is_valid(case, ParameterLocation.HEADER):
        # The API refuses a key that it has seen with another body. Other tests cover that; here it would hide everything else.
        case.headers[_KEY] = _unused("key", case.headers[_KEY])
    if case.query and "cursor" in case.query and _is_valid(case, ParameterLocation.QUERY):
        case.query["cursor"] = _CURSOR
    if _is_valid(case, ParameterLocation.QUERY) and (case.path.endswith("/stream") or "wait_for" in (case.query or {})):
        # Do not wait: nothing in this run would end the wait.
        case.query = {**(case.query or {}), "timeout": "0"}
    if isinstance(case.body, dict):
        if _is_valid(case, ParameterLocation.BODY):
            _fix_controls(case.body)
        _fix_body(case.body)
        for field in ("payouts", "users"):
            for item in case.body[field] if isinstance(case.body.get(field), list) else ():
                if isinstance(item, dict):
                    _fix_body(item)


def _is_valid(case: Any, place: ParameterLocation) -> bool:
    component = case.meta.components.get(place) if case.meta else None
    return component is None or component.mode.is_positive


def _unused(kind: str, value: str) -> str:
    """Return the value if this run has not used it yet, otherwise a generated one."""
    # Schemathesis calls this from several threads.
    with _lock:
        if (kind, value) in _used:
            value = f"{kind}_{next(_numbers)}"
        _used.add((kind, value))
    return value


def _fix_controls(body: dict[str, Any]) -> None:
    for result in body["results"] if isinstance(body.get("results"), list) else ():
        if isinstance(result, dict):
            _fix_controls(result)
    for field, value in body.items():
        # For JSON Schema 143.0 is an integer. The API refuses it, because a client that sends it computes with floats.
        if isinstance(value, float) and value.is_integer():
            body[field] = int(value)
    if isinstance(body.get("steps"), list):
        # No schema can say which path is legal from PENDING, or which of two amounts is larger.
        body["steps"] = [{"to": "PROCESSING"}, {"to": "SUCCESS"}]
        body["match"] = {"suffix": "98765"}
        body["name"] = _unused("scenario", body["name"])
    if "kind" in body and "target" in body:
        # A fault that applied would hide the responses of other operations.
        body["match"] = {"path": "/nowhere"} if body["target"] == "api" else {"event_type": "none"}
    if isinstance(body.get("rate_limit"), int | float) and "url" not in body:
        # A limit that is reached would hide the responses of other operations.
        body["rate_limit"] = 100_000
    if "wait_seconds" in body:
        body["wait_seconds"] = 0  # nothing in this run would end the wait
    if "scenario_header" in body:
        body["scenario_header"] = "success"


def _fix_body(body: dict[str, Any]) -> None:
    reference = body.get("merchant_reference")
    if isinstance(reference, str) and 1 <= len(reference) <= 64:
        body["merchant_reference"] = _unused("reference", reference)
    for field in ("external_id", "vendor_user_id"):
        value = body.get(field)
        if isinstance(value, str) and 1 <= len(value) <= 64:
            body[field] = _unused(field, value)
    if isinstance(body.get("destination"), dict):
        _fix_body(body["destination"])
    for field in ("url", "webhook_url", "forward_to"):
        # The domain .invalid never resolves (RFC 6761), so no delivery leaves the machine.
        if isinstance(body.get(field), str) and re.fullmatch(r"https?://[!-~]{1,1992}", body[field]):
            body[field] = "https://contract.invalid/webhooks"
    account = body.get("account_number")
    found = _IBAN.fullmatch(account) if isinstance(account, str) else None
    if found is not None:
        directory = load_directory()
        code, wallet = body.get("bank_code"), body.get("wallet_code")
        target = directory.bank(code) if isinstance(code, str) else None
        target = target or (directory.wallet(wallet) if isinstance(wallet, str) else None)
        if target is not None:
            body["account_number"] = make_iban(target.iban_code, found[1])
