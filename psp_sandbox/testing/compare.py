"""Compare a recorded answer with the answer to the same call in another world."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

REDACTED: Final = "[redacted]"
_CUT: Final = "...[cut]"
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")
_PROBLEM_TYPE: Final = re.compile(r"https?://[^/]+(/.*)?(/problems/[A-Z_]+)\Z")
_MEASURED: Final = re.compile(
    r".*_ms\Z|size\Z|error\Z|error_class\Z|signed_at\Z|signed_content\Z|offset_seconds\Z|next_cursor\Z"
)
"""Fields whose values the host measures, or that depend on the host's clock."""
_SIGNED: Final = re.compile(r".*signature.*|.*timestamp\Z|x-sandbox-now|date\Z|content-length\Z", re.IGNORECASE)
"""Fields with signatures or the host's time. They differ between worlds, because secrets and clocks differ."""
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')


@dataclass(frozen=True)
class Difference:
    """A part of an answer that differs. `where` is its path, such as `data[0].status`."""

    where: str
    recorded: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.where or 'body'}: was {_short(self.recorded)}, is {_short(self.now)}"


@dataclass
class Comparison:
    """Compares answers call by call, and remembers which recorded id stands for which new one.

    If `exact`, both worlds have the same seed and a frozen clock, so ids and times must be equal.
    """

    exact: bool
    new_ids: dict[str, str] = field(default_factory=dict)
    """Recorded id → the id that takes its place."""
    old_ids: dict[str, str] = field(default_factory=dict)

    def translate(self, text: str) -> str:
        """Return a recorded path or body with the ids of the new world."""
        return _UUID.sub(lambda found: self.new_ids.get(found[0], found[0]), text)

    def differences(
        self, recorded: Any, now: Any, *, is_partial: bool = False, is_host_timed: bool = False
    ) -> list[Difference]:
        """Return where two JSON answers differ.

        `is_partial` says that the recorded answer is cut off. `is_host_timed` says that its ids and times are the host's.
        """
        return list(self._compare(recorded, now, "", "", is_partial, self.exact and not is_host_timed))

    def _compare(self, recorded: Any, now: Any, name: str, where: str, partial: bool, exact: bool) -> Iterator[Difference]:
        if recorded == now and type(recorded) is type(now):
            self._learn(recorded, now)
        elif isinstance(recorded, dict) and isinstance(now, dict):
            for key in [*recorded, *(key for key in now if key not in recorded)]:
                inner = f"{where}.{key}" if where else key
                if key not in now:
                    yield Difference(inner, recorded[key], _Missing())
                elif key in recorded:
                    yield from self._compare(recorded[key], now[key], key, inner, partial, exact)
                elif not partial:
                    yield Difference(inner, _Missing(), now[key])
        elif isinstance(recorded, list) and isinstance(now, list):
            for place, (one, other) in enumerate(zip(recorded, now, strict=False)):
                yield from self._compare(one, other, name, f"{where}[{place}]", partial, exact)
            if len(recorded) > len(now) or (len(recorded) < len(now) and not partial):
                yield Difference(where, f"{len(recorded)} items", f"{len(now)} items")
        elif not self._is_same(recorded, now, name, exact):
            yield Difference(where, recorded, now)

    def _is_same(self, recorded: Any, now: Any, name: str, exact: bool) -> bool:
        if _MEASURED.match(name) or _SIGNED.match(name):
            return True
        if not isinstance(recorded, str) or not isinstance(now, str):
            return False
        if REDACTED in recorded or _CUT in recorded:
            return _as_pattern(recorded).match(now) is not None
        problem, other = _PROBLEM_TYPE.match(recorded), _PROBLEM_TYPE.match(now)
        if problem and other:
            return problem[2] == other[2]
        if exact:
            return False
        if _TIME.match(recorded) and _TIME.match(now):
            return True
        if name == "psp_reference":
            return self._pair(recorded, now)
        if _UUID.split(recorded) != _UUID.split(now):
            return False
        return all(self._pair(*ids) for ids in zip(_UUID.findall(recorded), _UUID.findall(now), strict=True))

    def _learn(self, recorded: Any, now: Any) -> None:
        """Remember the ids of parts that are equal."""
        if isinstance(recorded, str) and len(recorded) == 36 and _UUID.fullmatch(recorded):
            self._pair(recorded, now)
        elif isinstance(recorded, dict):
            for key, value in recorded.items():
                self._learn(value, now[key])
        elif isinstance(recorded, list):
            for one, other in zip(recorded, now, strict=True):
                self._learn(one, other)

    def _pair(self, recorded: str, now: str) -> bool:
        """Return whether the new id always stands for the recorded one, and only for that."""
        return self.new_ids.setdefault(recorded, now) == now and self.old_ids.setdefault(now, recorded) == recorded


class _Missing:
    """Stands for the value of a missing field."""


def parse(text: str) -> tuple[Any, bool]:
    """Return a recorded body as JSON, and whether it is cut off. Of a body that is cut off, returns the part before the cut.

    Returns None for an empty body. Raises ValueError for a body that is not JSON.
    """
    if not text:
        return None, False
    try:
        return json.loads(text), False
    except ValueError:
        return json.loads(_completed(text.removesuffix(REDACTED))), True


def _completed(text: str) -> str:
    """Return the longest start of a JSON text that is valid once its brackets are closed."""
    closing: list[str] = []
    best = ""
    tokens = list(_TOKEN.finditer(text))
    for number, token in enumerate(tokens):
        mark = token[0]
        if mark in "{[":
            closing.append("}" if mark == "{" else "]")
        elif mark in "}]" and closing:
            closing.pop()
        is_last = number + 1 == len(tokens)
        # A value is complete if something follows it; a name is not a value.
        if mark in "{[}]" or (mark not in ",:" and not is_last and tokens[number + 1][0] != ":"):
            best = text[: token.end()] + "".join(reversed(closing))
    return best


def _as_pattern(recorded: str) -> re.Pattern[str]:
    parts = re.split(re.escape(REDACTED) + "|" + re.escape(_CUT), recorded)
    return re.compile(".*".join(map(re.escape, parts)) + r"\Z", re.DOTALL)


def _short(value: Any) -> str:
    if isinstance(value, _Missing):
        return "missing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + "…"
