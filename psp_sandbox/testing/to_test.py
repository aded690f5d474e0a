"""Write a pytest test that makes a recorded world's calls one by one, to be read and edited."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from psp_sandbox.testing.application_test import application_test
from psp_sandbox.testing.compare import parse
from psp_sandbox.testing.fresh_world import CannotReplayError
from psp_sandbox.testing.recording import file_beside, read_beside
from psp_sandbox.testing.replay import fields_of, first_url, is_exact, read_bundle, why_not, without_polls
from psp_sandbox.testing.stand_in import statuses_of

_WIDTH: Final = 118
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_VERSION: Final = re.compile(r"v\d+\Z")
_EXPECTED: Final = (
    "amount", "available", "available_balance", "balance", "balance_after", "code", "complete", "count", "currency",
    "default_scenario", "drained", "failed", "failure_code", "from", "frozen", "invalid", "kind", "locked_balance",
    "merchant_reference", "name", "now", "ok", "paid", "reason", "reset", "restored", "review_threshold", "role", "status",
    "succeeded", "target", "to", "total_amount", "total_requested", "type", "valid",
)  # fmt: skip
"""The fields whose values a test expects. The others say little, or differ in each run."""
_CONTAINERS: Final = ("data", "results", "payout", "problem", "balance")
_RUNNING: Final = frozenset(
    {
        "now",
        "available_balance",
        "locked_balance",
        "balance",
        "balance_after",
        "paid",
        "failed",
        "succeeded",
        "count",
        "drained",
    }
)
"""Fields that depend on how far workers have come, if the clock was running."""
_UNSETTLED: Final = frozenset({"PENDING", "PROCESSING", "RETRY", "UPLOADED"})
_RACING: Final = ("/api/v1/webhook-deliveries", "/api/v1/events", "/aggregator/", "/sandbox/v1/overview")


def to_test(bundle: Mapping[str, Any], source: str) -> str:
    """Return the source code of a test. `source` is the bundle's name, for the docstring."""
    return _Writer(bundle).source(source)


def test_of_file(file: Path, output: Path | None) -> str:
    """Return the source code of a test of a bundle's file, to be written to `output`.

    If a failed test with an application has saved the bundle, it repeats that test. Raises CannotReplayError, OSError.
    """
    bundle = read_bundle(file)
    try:
        recorded = read_beside(file)
    except ValueError as error:
        raise CannotReplayError(f"{file_beside(file)}: {error}") from error
    if recorded is None:
        return to_test(bundle, file.name)
    folder = Path.cwd() if output is None else output.resolve().parent
    return application_test(bundle, recorded, os.path.relpath(file.resolve(), folder))


class _Code(str):
    """Python code. Any other string is a value, which is written as a literal."""


class _Writer:
    def __init__(self, bundle: Mapping[str, Any]) -> None:
        self._bundle = bundle
        self._is_exact = is_exact(bundle)
        calls = [(number, call) for number, call in without_polls(bundle["journal"]["calls"]) if call["path"].startswith("/")]
        self._answers = statuses_of(bundle["tables"])
        self._calls = list(self._without_repetitions(calls))
        keys = Counter(call["idempotency_key"] for _, call in calls if call["idempotency_key"])
        self._repeated_keys = {key for key, count in keys.items() if count > 1}
        self._expressions: dict[str, str] = {}
        """Id → the expression for it in the test."""
        self._names: Counter[str] = Counter()
        self._keys: dict[str, str] = {}
        """Id of an API key that a call creates → the expression of the key."""

    def source(self, source: str) -> str:
        """Return the whole module."""
        merchant = self._bundle["merchant"]
        slug = re.sub(r"[^a-z0-9]+", "_", merchant["name"].lower()).strip("_") or "world"
        fields = {name: value for name, value in fields_of(self._bundle).items() if name != "webhook_url"}
        arguments = ["psp_sandbox.url", "psp_sandbox.admin_key"]
        first = first_url(self._bundle)
        arguments += ["has_endpoint=True"] if first is not None else []
        arguments += [f"answers={self._render(self._answers[first], 8)}"] if first in self._answers else []
        arguments += [f"{name}={_value(value)}" for name, value in fields.items()]
        opening = f"    with FreshWorld({', '.join(arguments)}) as world:"
        if len(opening) > _WIDTH:
            opening = "    with FreshWorld(\n" + "".join(f"        {one},\n" for one in arguments) + "    ) as world:"
        body = [line for number, call in self._calls for line in self._lines(number, call)]
        body.append("        # The bundle has the calls, but not what your own test asserted: add that here.")
        # The plugin fails a test whose deliveries have failed, so this one fails with the same receivers, too.
        body.append(
            "        world.assert_delivered()" if self._answers and self._has_failed() else "        assert world.merchant_id"
        )
        title = json.dumps(
            f"The calls of {source}, one by one. `psp world to-test` wrote this; change it as you like.", ensure_ascii=False
        )
        return "\n".join(
            [
                f'""{title}""',
                "",
                "from psp_sandbox.testing.fresh_world import FreshWorld",
                "",
                "",
                f"def test_{slug}(psp_sandbox):",
                opening,
                *body,
                "",
            ]
        )

    def _has_failed(self) -> bool:
        """Whether a delivery was attempted, and had not succeeded in the end."""
        table = self._bundle["tables"]["webhook_deliveries"]
        rows = (dict(zip(table["columns"], row, strict=True)) for row in table["rows"])
        return any(row["status"] != "SUCCEEDED" and row["attempts"] for row in rows)

    def _without_repetitions(self, calls: list[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """Yield the calls, but of a GET that is repeated until its answer changes only the last one."""
        for (method, *_), group in groupby(calls, lambda item: (item[1]["method"], item[1]["path"], item[1]["query"])):
            items = list(group)
            yield from items[-1:] if method in ("GET", "HEAD") else items

    def _lines(self, number: int, call: Mapping[str, Any]) -> Iterator[str]:
        reason = why_not(call)
        if reason is None and call["fault"] is not None:
            reason = f"the fault {call['fault']['kind']} hit it"
        if reason is not None:
            yield f"        # {call['method']} {call['path']} is left out: {reason}."
            return
        try:
            answer, _ = parse(call["response_body"])
        except ValueError:
            answer = None
        body, _ = parse(call["request_body"]) if _has_body(call) else (None, False)
        path = call["path"] + (f"?{call['query']}" if call["query"] else "")
        arguments = [json.dumps(call["method"]), self._text(path)]
        if body is not None:
            arguments.append(self._render(self._with_receiver(call, body), 12))
        if call["status"] != 200:
            arguments.append(f"status={call['status']}")
        expected = self._expected(call, answer)
        if expected not in (None, {}, []):
            arguments.append(f"expect={self._render(expected, 12)}")
        if call["idempotency_key"] in self._repeated_keys:
            arguments.append(f"key={_value(call['idempotency_key'])}")
        headers = self._headers(call)
        if headers:
            arguments.append(f"headers={self._render(headers, 12)}")
        target = self._remember(number, call, answer)
        line = f"        {target}world.call({', '.join(arguments)})"
        if len(line) <= _WIDTH and "\n" not in line:
            yield line
        else:
            yield f"        {target}world.call("
            yield from (f"            {argument}," for argument in arguments)
            yield "        )"

    def _headers(self, call: Mapping[str, Any]) -> dict[str, Any]:
        given = call["request_headers"]
        headers: dict[str, Any] = {}
        if "x-sandbox-scenario" in given:
            headers["X-Sandbox-Scenario"] = given["x-sandbox-scenario"]
        if call["api_key_id"] in self._keys:
            headers["X-API-KEY"] = _Code(self._keys[call["api_key_id"]])
        return headers

    def _with_receiver(self, call: Mapping[str, Any], body: Any) -> Any:
        is_endpoint = call["path"].startswith("/api/v1/webhook-endpoints") and call["status"] < 400
        if is_endpoint and isinstance(body, dict) and isinstance(body.get("url"), str):
            arguments = [_value(re.sub(r"\W+", "-", body["url"]).strip("-"))]
            arguments += [self._render(self._answers[body["url"]], 20)] if body["url"] in self._answers else []
            return {**body, "url": _Code(_bracketed("world.receiver_url(", arguments, ")", 16))}
        return body

    def _remember(self, number: int, call: Mapping[str, Any], answer: Any) -> str:
        """Return `name = ` if a later call uses an id of the answer, and remember the ids' expressions."""
        later = "".join(
            f"{other['path']} {other['query']} {other['request_body']} {other['api_key_id']}"
            for place, other in self._calls
            if place > number
        )
        found = {
            value: path
            for value, path in _ids(answer, "")
            if value in later and value not in self._expressions and value not in self._keys
        }
        if not found:
            return ""
        name = self._name(call["path"])
        self._expressions |= {value: f"{name}{path}" for value, path in found.items()}
        if call["path"] == "/sandbox/v1/keys" and call["method"] == "POST":
            self._keys[answer["id"]] = f'{name}["api_key"]'
        return f"{name} = "

    def _name(self, path: str) -> str:
        words = [part for part in path.split("/")[1:] if not _UUID.fullmatch(part) and not _VERSION.match(part)]
        noun = re.sub(r"\W+", "_", words[-1]) if words else "answer"
        noun = _singular(noun)
        self._names[noun] += 1
        return noun if self._names[noun] == 1 else f"{noun}_{self._names[noun]}"

    def _expected(self, call: Mapping[str, Any], answer: Any) -> Any:
        if call["status"] < 400 and call["path"].startswith(_RACING):
            return None
        is_cut = not _is_whole(call["response_body"])
        return self._matter(answer, is_cut)

    def _matter(self, answer: Any, is_cut: bool) -> Any:
        """Return the part of an answer that a test should expect. A list that is cut off is left out."""
        if not isinstance(answer, dict):
            return None
        found: dict[str, Any] = {}
        for name, value in answer.items():
            if name in _CONTAINERS and isinstance(value, list):
                items = [self._matter(item, is_cut) or {} for item in value]
                if not is_cut and all(isinstance(item, dict) for item in value):
                    found[name] = items
            elif name in _CONTAINERS and isinstance(value, dict):
                inner = self._matter(value, is_cut)
                found |= {name: inner} if inner else {}
            elif name in _EXPECTED and (isinstance(value, bool | int | str)) and self._is_stable(name, value):
                found[name] = value
        return found

    def _is_stable(self, name: str, value: Any) -> bool:
        if isinstance(value, str) and ("[redacted]" in value or _UUID.search(value) or value.startswith("http")):
            return False
        return self._is_exact or not (name in _RUNNING or value in _UNSETTLED)

    def _text(self, text: str) -> str:
        """Return Python code for a text. Each known id in it becomes the expression that has the id."""
        parts = [(found.start(), found.end(), self._expressions[found[0]]) for found in _UUID.finditer(text)
                 if found[0] in self._expressions]  # fmt: skip
        if not parts:
            return _value(text)
        if parts[0][:2] == (0, len(text)):
            return parts[0][2]
        out, at = "", 0
        for start, end, expression in parts:
            out += _escaped(text[at:start]) + "{" + expression.replace('"', "'") + "}"
            at = end
        return f'f"{out}{_escaped(text[at:])}"'

    def _render(self, value: Any, indent: int) -> str:
        """Return a value as Python code, over several lines if it is long."""
        if isinstance(value, _Code):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            parts = [f"{_value(name)}: {self._render(item, indent + 4)}" for name, item in value.items()]
            return _bracketed("{", parts, "}", indent)
        if isinstance(value, list):
            return _bracketed("[", [self._render(item, indent + 4) for item in value], "]", indent)
        return repr(value)


def _bracketed(start: str, parts: list[str], end: str, indent: int) -> str:
    line = f"{start}{', '.join(parts)}{end}"
    if indent + len(line) + 12 <= _WIDTH and "\n" not in line:
        return line
    inner = " " * (indent + 4)
    return f"{start}\n" + "".join(f"{inner}{part},\n" for part in parts) + " " * indent + end


def _has_body(call: Mapping[str, Any]) -> bool:
    return call["request_body"] not in ("", "[redacted]")


def _is_whole(text: str) -> bool:
    try:
        return not parse(text)[1]
    except ValueError:
        return False


def _singular(noun: str) -> str:
    """Return the singular of a plural that the API's paths have."""
    for plural, singular in (("ies", "y"), ("ches", "ch"), ("ss", "ss"), ("us", "us"), ("s", "")):
        if noun.endswith(plural):
            return noun.removesuffix(plural) + singular
    return noun


def _ids(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the ids in an answer, each with the subscripts that lead to it."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name != "ran":  # what an advance runs depends on what workers have done before
                yield from _ids(item, f"{path}[{_value(name)}]")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _ids(item, f"{path}[{place}]")
    elif isinstance(value, str) and _UUID.fullmatch(value):
        yield value, path


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _escaped(text: str) -> str:
    return _value(text)[1:-1].replace("{", "{{").replace("}", "}}")
