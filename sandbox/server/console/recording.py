"""Write recorded calls as a script or a test that makes them again for a new merchant. Pure.

The clock's moves are among the calls. Where time passed by itself between two calls, a move takes its place, so that the same
payouts and events result without the wait.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sandbox.domain.clock import parse
from sandbox.domain.redaction import CUT, HIDDEN
from sandbox.http.curl import MERCHANT_KEY, NEW_KEY

MADE_BY: Final = "psp-console"
"""The User-Agent of the console's own calls."""
BALANCE: Final = "1000000.00"
"""The opening balance of the new merchant. It is ample, because calls that were refused are left out."""
_CLOCK: Final = "/sandbox/v1/clock/"
_DRAIN: Final = "/sandbox/v1/drain"
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORTEST: Final = 0.05
"""Shorter gaps between calls, in seconds, are ignored."""
_SCENARIO: Final = "x-sandbox-scenario"

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A call to make. `gives` has the ids in its response that later steps use: variable name → path of keys to the id."""

    method: str
    path: str
    body: Any
    status: int
    scenario: str
    gives: Mapping[str, Sequence[str | int]]


@dataclass(frozen=True, slots=True)
class Recording:
    """Steps, the names of the ids in them, and what could not be recorded."""

    steps: Sequence[Step]
    names: Mapping[str, str]
    """Id → the name of the variable that holds it."""
    left_out: Sequence[str]

    def shell(self, url: str) -> str:
        """Return a script for a POSIX shell with curl and jq. The key is in PSP_API_KEY."""
        lines = [
            "#!/bin/sh",
            "# Needs curl and jq, and in PSP_API_KEY the key of a new merchant:",
            f"# psp merchants create mine --opening-balance {BALANCE}",
            "set -eu",
            f"url={shlex.quote(url.rstrip('/'))}",
            "call() {",
            "  method=$1 path=$2 body=$3; shift 3",
            f'  curl -sS --fail-with-body -X "$method" "$url$path" {MERCHANT_KEY} \\',
            f"    {NEW_KEY} \\",
            '    -H \'Content-Type: application/json\' -d "$body" "$@"',
            "}",
            *(f"# Left out: {text}." for text in self.left_out),
        ]
        for step in self.steps:
            lines += self._shell(step)
        return "\n".join(lines) + "\n"

    def _shell(self, step: Step) -> list[str]:
        body = _in_shell(json.dumps({} if step.body is None else step.body, ensure_ascii=False), self.names)
        scenario = f" -H {shlex.quote(f'X-Sandbox-Scenario: {step.scenario}')}" if step.scenario else ""
        command = f"call {step.method} {_in_shell(step.path, self.names)} {body}{scenario}"
        if not step.gives:
            return [f"{command} >/dev/null"]
        take = [f"{name}=$(printf '%s' \"$answer\" | jq -r {shlex.quote(_jq(keys))})" for name, keys in step.gives.items()]
        return [f"answer=$({command})", *take]

    def pytest(self) -> str:
        """Return a test for pytest, with the sandbox's plugin."""
        lines = [
            "from psp_sandbox.testing.fresh_world import FreshWorld",
            "",
            "",
            "def test_what_i_did(psp_sandbox):",
            f"    with FreshWorld(psp_sandbox.url, psp_sandbox.admin_key, opening_balance={BALANCE!r}) as world:",
            *(f"        # Left out: {text}." for text in self.left_out),
        ]
        for step in self.steps:
            arguments = [_python(step.method, {}), _python(step.path, self.names)]
            arguments += [] if step.body is None else [_python(step.body, self.names)]
            arguments += [f"status={step.status}"] if step.status != 200 else []
            arguments += [f"headers={{'X-Sandbox-Scenario': {step.scenario!r}}}"] if step.scenario else []
            target = "answer = " if step.gives else ""
            lines.append(f"        {target}world.call({', '.join(arguments)})")
            lines += [f"        {name} = answer{_subscripts(keys)}" for name, keys in step.gives.items()]
        return "\n".join([*lines, "        assert world.merchant_id  # say here what should have happened", ""])

    def vitest(self) -> str:
        """Return a test for Vitest, with the sandbox's package."""
        lines = [
            'import { test as base } from "vitest";',
            'import { withPsp } from "psp-sandbox/vitest";',
            "",
            f'const test = withPsp(base, {{ balance: "{BALANCE}" }});',
            "",
            'test("what I did", async ({ psp }) => {',
            "  const call = async (method, path, body, more = {}) => {",
            '    const headers = { "X-API-KEY": psp.apiKey, "X-IDEMPOTENCY-KEY": crypto.randomUUID(), ...more };',
            '    headers["Content-Type"] = "application/json";',
            "    const answer = await fetch(psp.url + path, { method, headers, body: JSON.stringify(body) });",
            "    if (!answer.ok) throw new Error(`${method} ${path}: ${await answer.text()}`);",
            "    return answer.status === 204 ? null : answer.json();",
            "  };",
            *(f"  // Left out: {text}." for text in self.left_out),
        ]
        for number, step in enumerate(self.steps):
            arguments = [json.dumps(step.method), _javascript(step.path, self.names)]
            arguments.append(_javascript({} if step.body is None else step.body, self.names))
            arguments += [f'{{ "X-Sandbox-Scenario": {json.dumps(step.scenario)} }}'] if step.scenario else []
            target = f"const answer{number} = " if step.gives else ""
            lines.append(f"  {target}await call({', '.join(arguments)});")
            lines += [f"  const {name} = answer{number}{_subscripts(keys)};" for name, keys in step.gives.items()]
        return "\n".join([*lines, "});", ""])


def record(entries: Sequence[Entry], *, is_frozen: bool, now: str) -> Recording:
    """Return the recording of a merchant's calls in the journal, oldest first.

    `is_frozen` says whether the clock is frozen after them, at the host's time `now`.
    """
    frozen = _frozen_before(entries, is_frozen=is_frozen)
    steps = [_move(_CLOCK + "freeze", {})]
    names: dict[str, str] = {}
    left_out: list[str] = []
    before = entries[0]["at"] if entries else now
    for number, (entry, is_still) in enumerate(zip(entries, frozen, strict=True)):
        steps += _passing(before, entry["at"], is_still=is_still) if number else []
        before = entry["at"]
        why = _why_not(entry)
        if why:
            left_out.append(f"{entry['method']} {entry['path']}, {why}")
            continue
        steps += _steps(entry, entries[number + 1 :], names)
    steps += _passing(before, now, is_still=is_frozen)
    # A second drain in a row has nothing to do.
    kept = [step for number, step in enumerate(steps) if step.path != _DRAIN or steps[number - 1].path != _DRAIN]
    return Recording(kept if entries else [], names, left_out)


def _frozen_before(entries: Sequence[Entry], *, is_frozen: bool) -> list[bool]:
    """Return for each call whether the clock was frozen just before it."""
    found: list[bool] = []
    state = is_frozen
    for entry in reversed(entries):
        if entry["status"] < 300 and entry["path"] in (_CLOCK + "freeze", _CLOCK + "resume"):
            state = entry["path"].endswith("resume")
        found.append(state)
    return found[::-1]


def _passing(before: str, after: str, *, is_still: bool) -> list[Step]:
    """Return the steps that stand for the time between two calls: workers do what is due, and a running clock goes on."""
    seconds = (parse(after) - parse(before)).total_seconds()
    moves = [] if is_still or seconds < _SHORTEST else [_move(_CLOCK + "advance", {"seconds": round(seconds, 3)})]
    return [*moves, _move(_DRAIN, {})]


def _move(path: str, body: Any) -> Step:
    return Step("POST", path, body, 200, "", {})


def _why_not(entry: Entry) -> str:
    """Return why a call cannot be made again; empty if it can."""
    if entry["status"] >= 400:
        return f"which was refused with {entry['status']}"
    if entry["path"] == _CLOCK + "resume":
        return "because in this test time passes only when a call advances the clock"
    text = entry["request_body"]
    if text and (HIDDEN in text or CUT in text or _json(text) is None):
        return "whose body the journal does not have"
    return ""


def _steps(entry: Entry, later: Sequence[Entry], names: dict[str, str]) -> Iterator[Step]:
    body, answer = _json(entry["request_body"]), _json(entry["response_body"])
    if entry["path"].startswith(_CLOCK) and isinstance(answer, dict) and {"from", "now"} <= answer.keys():
        seconds = (parse(answer["now"]) - parse(answer["from"])).total_seconds()
        if seconds > 0:
            yield _move(_CLOCK + "advance", {"seconds": seconds})
            return
    used = "".join(f"{one['path']} {one['request_body']}" for one in later)
    found = {id_: keys for id_, keys in _ids(answer, ()) if id_ in used and id_ not in names}
    gives: dict[str, Sequence[str | int]] = {}
    for id_, keys in found.items():
        name = _name(entry["path"], set(names.values()))
        names[id_], gives[name] = name, keys
    scenario = entry["request_headers"].get(_SCENARIO, "")
    yield Step(entry["method"], entry["path"], body, entry["status"], scenario, gives)


def _name(path: str, taken: set[str]) -> str:
    """Return a variable's name: what the path makes, with a number if there are several."""
    words = [part for part in path.split("/") if part and not _UUID.fullmatch(part)]
    noun = re.sub(r"\W+", "_", words[-1]).strip("_").removesuffix("s") or "thing"
    number = 1
    while f"{noun}_{number}" in taken:
        number += 1
    return f"{noun}_{number}"


def _ids(value: Any, keys: tuple[str | int, ...]) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _ids(item, (*keys, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _ids(item, (*keys, place))
    elif isinstance(value, str) and _UUID.fullmatch(value):
        yield value, keys


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _parts(text: str, names: Mapping[str, str], literal: Callable[[str], str], variable: Callable[[str], str]) -> str:
    """Return a text with its known ids as variables, and all else as `literal` writes it."""
    found, at = "", 0
    for match in _UUID.finditer(text):
        if match[0] in names:
            found += literal(text[at : match.start()]) + variable(names[match[0]])
            at = match.end()
    return found + literal(text[at:])


def _in_shell(text: str, names: Mapping[str, str]) -> str:
    return _parts(text, names, lambda part: shlex.quote(part) if part else "", lambda name: f'"${name}"') or "''"


def _python(value: Any, names: Mapping[str, str]) -> str:
    """Return a JSON value as Python code."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {_python(item, names)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_python(item, names) for item in value) + "]"
    if not isinstance(value, str) or not any(match in names for match in _UUID.findall(value)):
        return repr(value)
    text = _parts(value, names, lambda part: repr(part)[1:-1].replace("{", "{{").replace("}", "}}"), lambda name: f"{{{name}}}")
    return f"f{repr(value)[0]}{text}{repr(value)[0]}"


def _javascript(value: Any, names: Mapping[str, str]) -> str:
    """Return a JSON value as JavaScript. An id that is a value by itself or part of a text becomes a template."""
    text = json.dumps(value, ensure_ascii=False)
    quoted = re.compile(r'"((?:[^"\\]|\\.)*)"')

    def template(match: re.Match[str]) -> str:
        if not any(id_ in names for id_ in _UUID.findall(match[1])):
            return match[0]
        escaped = match[1].replace("`", "\\`").replace("${", "\\${")
        return "`" + _parts(escaped, names, str, lambda name: f"${{{name}}}") + "`"

    return quoted.sub(template, text)


def _jq(keys: Sequence[str | int]) -> str:
    return "." + "".join(f"[{json.dumps(key)}]" for key in keys)


def _subscripts(keys: Sequence[str | int]) -> str:
    return "".join(f"[{json.dumps(key)}]" for key in keys)
