"""Repeat a world's API calls against a fresh world, and show where the answers differ."""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.testing.compare import REDACTED, Comparison, Difference, parse
from psp_sandbox.testing.fresh_world import CannotReplayError, FreshWorld
from psp_sandbox.testing.recording import ENDPOINTS
from psp_sandbox.testing.stand_in import StandIn

if TYPE_CHECKING:
    import httpx

FORMAT: Final = "psp.world"
VERSION: Final = 1
_KEYS: Final = "/sandbox/v1/keys"
_DRAIN: Final = "/sandbox/v1/drain"
_POLL_FIELDS: Final = ("method", "path", "query", "request_body", "api_key_id", "status", "response_body", "fault")
REPEATED_HEADERS: Final = ("accept", "content-type", "content-encoding", "traceparent", "x-sandbox-scenario")
_HOST_TIMED: Final = ("/sandbox/v1/snapshots", "/sandbox/v1/receiver-tests", "/sandbox/v1/overview", _KEYS, "/aggregator/")
"""Paths whose answers contain ids and times of the host, even in a frozen world."""
_DELIVERIES: Final = re.compile(r"(.*\.)?(status|attempt_count|attempts(\[\d+\])?|next_attempt_at|updated_at)(\..*)?\Z")
_BACKGROUND: Final = {
    "/api/v1/webhook-deliveries": _DELIVERIES,
    "/api/v1/events": _DELIVERIES,
    "/api/v1/webhook-endpoints": re.compile(r"(.*\.)?failing_since\Z"),
    "/sandbox/v1/snapshots": re.compile(r"(.*\.)?rows\Z"),
    "/sandbox/v1/overview": re.compile(r".*"),
    "/aggregator/": re.compile(r".*"),
}
"""Paths → the fields that depend on how far workers have come, which make deliveries also while the clock is frozen."""
_URL_FIELD: Final = re.compile(r'"(?:url|forward_to)"\s*:\s*"[^"]*"')
_PROMPT_SECONDS: Final = 3.0
"""How long a GET is repeated until its answer is as recorded: workers act in the background."""
_CUT_FROM: Final = 3900
"""In bytes. A journal's body of this size that is not valid JSON was cut off."""
_REFUSED_BEFORE_BODY: Final = (403, 406, 429)
"""Statuses of calls that are refused before their body is read. The journal does not have it, and it does not matter."""
_BROKEN: Final = ("connection_reset", "truncated_body")
"""Faults that leave the caller without an answer, while the journal has one."""


@dataclass(frozen=True)
class Skipped:
    """A call that was not repeated, and why."""

    number: int
    call: str
    reason: str

    def __str__(self) -> str:
        return f"call {self.number}, {self.call}: not repeated, because {self.reason}"


@dataclass(frozen=True)
class Differing:
    """A call whose answer differs."""

    number: int
    call: str
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        return "\n".join([f"call {self.number}, {self.call}:", *(f"  {difference}" for difference in self.differences)])


@dataclass
class Report:
    """The result of a replay."""

    is_exact: bool
    """Whether ids and times must be equal too, because the world has a seed and a frozen clock."""
    merchant_id: str | None = None
    """The merchant of the fresh world, if it was kept."""
    repeated: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    differing: list[Differing] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all answers are the same."""
        return not self.differing

    def __str__(self) -> str:
        kind = "ids and times included" if self.is_exact else "ids mapped, times ignored"
        head = (
            f"{self.repeated} calls repeated, {len(self.differing)} answers differ ({kind}), {len(self.skipped)} calls skipped."
        )
        return "\n".join([*map(str, self.differing), *map(str, self.skipped), head])

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        differing = [
            {
                "number": call.number,
                "call": call.call,
                "differences": [{"where": d.where, "message": str(d)} for d in call.differences],
            }
            for call in self.differing
        ]
        return {
            "same": self.ok,
            "exact": self.is_exact,
            "repeated": self.repeated,
            "differing": differing,
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "merchant_id": self.merchant_id,
        }


def read_bundle(source: "str | os.PathLike[str] | Mapping[str, Any]") -> Mapping[str, Any]:
    """Return a bundle, from its file if `source` is a path. Raises OSError, or CannotReplayError if it is not one."""
    if isinstance(source, Mapping):
        bundle: Any = source
    else:
        try:
            bundle = json.loads(Path(source).read_text("utf-8"))
        except ValueError as error:
            raise CannotReplayError(f"{source} is not a world bundle: {error}") from error
    if not isinstance(bundle, Mapping) or bundle.get("format") != FORMAT or bundle.get("version") != VERSION:
        raise CannotReplayError(f"This is not a world bundle of version {VERSION}; `psp world export` writes one.")
    if not bundle["journal"]["complete"]:
        raise CannotReplayError(
            "The journal no longer begins with the merchant's first call: it keeps the newest 1000. No call can be repeated."
        )
    return bundle


def replay(
    source: "str | os.PathLike[str] | Mapping[str, Any]", url: str = "", admin_key: str = "", *, keep: bool = False
) -> Report:
    """Repeat a bundle's calls against a new merchant, which is deleted afterwards unless `keep`.

    `url` and `admin_key` default to PSP_URL and PSP_ADMIN_KEY. Raises CannotReplayError, OSError, and httpx.TransportError if
    the sandbox cannot be reached.
    """
    bundle = read_bundle(source)
    with StandIn(bundle["tables"]) as stand_in, FreshWorld(url, admin_key, **fields_of(bundle, stand_in)) as world:
        world.keep = keep
        repetition = _Repetition(bundle, world, stand_in)
        for number, call in without_polls(bundle["journal"]["calls"]):
            if call["path"].startswith("/"):  # the sandbox itself made the other calls
                repetition.repeat(number, call)
        repetition.report.merchant_id = world.merchant_id if keep else None
    return repetition.report


def is_exact(bundle: Mapping[str, Any]) -> bool:
    """Return whether the same calls always get the same answers: the world has a seed, and its clock was never running."""
    merchant, calls = bundle["merchant"], bundle["journal"]["calls"]
    resumed = any(call["path"] == "/sandbox/v1/clock/resume" for call in calls)
    return merchant["seed"] is not None and merchant["frozen_at"] is not None and not resumed


def fields_of(bundle: Mapping[str, Any], stand_in: StandIn | None = None) -> dict[str, Any]:
    """Return the fields that create a merchant like the bundle's. The URL of its first endpoint is the stand-in's."""
    merchant = bundle["merchant"]
    fields = {name: merchant[name] for name in ("name", "seed", "opening_balance", "frozen_at") if merchant[name] is not None}
    url = first_url(bundle)
    if url is not None:
        fields["webhook_url"] = url if stand_in is None else stand_in.url_for(url)
    return fields


def first_url(bundle: Mapping[str, Any]) -> str | None:
    """Return the first URL of the endpoint that was created with the merchant: no call in the journal created it."""
    created = {_id_of(call["response_body"]) for call in bundle["journal"]["calls"] if call["path"] == ENDPOINTS}
    table = bundle["tables"]["webhook_endpoints"]
    rows = (dict(zip(table["columns"], row, strict=True)) for row in table["rows"])
    row = next((row for row in rows if row["id"] not in created and not row["relayed"]), None)
    return None if row is None else _url_before_changes(bundle, row)


def _url_before_changes(bundle: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return the URL that calls saw before one of them changed it, as `live_app` does."""
    for call in bundle["journal"]["calls"]:
        if call["path"] == f"{ENDPOINTS}/{row['id']}" and call["method"] == "PATCH" and '"url"' in call["request_body"]:
            break  # nobody saw an earlier one
        if call["path"].startswith(ENDPOINTS) and call["method"] == "GET":
            for shown in _objects(call["response_body"]):
                if shown.get("id") == row["id"] and isinstance(shown.get("url"), str):
                    return str(shown["url"])
    return str(row["url"])


def _objects(body: str) -> list[dict[str, Any]]:
    """Return the object of an answer, or those of a list."""
    try:
        found, _ = parse(body)
    except ValueError:
        return []
    items = found.get("data", [found]) if isinstance(found, dict) else []
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def without_polls(calls: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the calls with their numbers, and only the first of reads or drains that got the same answer in a row."""
    last: tuple[Any, ...] | None = None
    for number, call in enumerate(calls, 1):
        is_poll = call["method"] in ("GET", "HEAD") or call["path"] == _DRAIN
        seen = tuple(call[name] for name in _POLL_FIELDS) if is_poll else None
        if seen is None or seen != last:
            yield number, call
        last = seen


def why_not(call: Mapping[str, Any]) -> str | None:
    """Return why a call cannot be repeated, or None."""
    body, path = call["request_body"], call["path"]
    length = call["request_headers"].get("content-length", "0")
    if path.startswith("/ipn/"):
        return "a bank sent it, with a signature"
    if call["method"] not in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        return "its method is not in the journal"
    is_invalid = call["status"] == 400  # it was not executed, and another value would be refused too
    if REDACTED in path or (REDACTED in call["query"] and not is_invalid):
        return "a part of its path or query is redacted"
    if body in ("", REDACTED):
        was_read = call["fault"] is None and call["status"] not in _REFUSED_BEFORE_BODY
        return "its body is not in the journal" if length != "0" and was_read else None
    if len(body.encode()) >= _CUT_FROM and not _is_json(body):
        return "its body is cut off"
    if REDACTED in _URL_FIELD.sub("", body) and not is_invalid:
        return "a part of its body is redacted"
    return None


class _Repetition:
    def __init__(self, bundle: Mapping[str, Any], world: FreshWorld, stand_in: StandIn) -> None:
        self.report = Report(is_exact(bundle))
        self._comparison = Comparison(self.report.is_exact)
        self._world = world
        self._stand_in = stand_in
        self._keys: dict[str, str] = {}
        """Recorded id of an API key that a call created → the new key."""

    def repeat(self, number: int, call: Mapping[str, Any]) -> None:
        """Repeat one call, and add what it shows to the report."""
        shown = f"{call['method']} {call['path']}" + (f"?{call['query']}" if call["query"] else "")
        reason = why_not(call)
        if reason is not None:
            self.report.skipped.append(Skipped(number, shown, reason))
            return
        self.report.repeated += 1
        differences = tuple(self._differences(call))
        if differences:
            self.report.differing.append(Differing(number, shown, differences))

    def _differences(self, call: Mapping[str, Any]) -> Iterator[Difference]:
        racing = next((fields for path, fields in _BACKGROUND.items() if call["path"].startswith(path)), None)
        waits = call["method"] in ("GET", "HEAD") and (racing is not None or not self.report.is_exact)
        deadline = time.monotonic() + _PROMPT_SECONDS
        while True:
            learned = dict(self._comparison.new_ids), dict(self._comparison.old_ids)
            found = self._try(call)
            if not found or not waits or time.monotonic() > deadline:
                break
            # An answer that was not the final one may have taught wrong ids.
            self._comparison.new_ids, self._comparison.old_ids = learned
            time.sleep(0.05)
        yield from (difference for difference in found if racing is None or not racing.match(difference.where))

    def _try(self, call: Mapping[str, Any]) -> list[Difference]:
        import httpx

        is_broken = call["fault"] is not None and call["fault"]["kind"] in _BROKEN
        try:
            response = self._send(call)
        except httpx.TransportError as error:
            return [] if is_broken else [Difference("status", call["status"], f"no answer: {error or type(error).__name__}")]
        if is_broken:
            return [Difference("fault", call["fault"]["kind"], "did not hit")]
        found = []
        if response.status_code != call["status"]:
            found.append(Difference("status", call["status"], response.status_code))
        return found + self._compare(call, response)

    def _send(self, call: Mapping[str, Any]) -> "httpx.Response":
        headers = {name: call["request_headers"][name] for name in REPEATED_HEADERS if name in call["request_headers"]}
        headers["X-Request-Id"] = call["request_id"]
        if call["idempotency_key"] is not None:
            headers["X-IDEMPOTENCY-KEY"] = call["idempotency_key"]
        if call["api_key_id"] in self._keys:
            headers["X-API-KEY"] = self._keys[call["api_key_id"]]
        body = "" if call["request_body"] == REDACTED else call["request_body"]
        if call["path"].startswith(ENDPOINTS) and call["status"] < 400:
            body = self._with_own_url(body)
        path = self._comparison.translate(call["path"])
        query = self._comparison.translate(call["query"])
        content = self._comparison.translate(body).encode()
        return self._world.send(call["method"], path + (f"?{query}" if query else ""), headers=headers, content=content)

    def _with_own_url(self, body: str) -> str:
        content = json.loads(body) if body else None
        if isinstance(content, dict) and isinstance(content.get("url"), str):
            return json.dumps({**content, "url": self._stand_in.url_for(content["url"])})
        return body

    def _compare(self, call: Mapping[str, Any], response: "httpx.Response") -> list[Difference]:
        recorded_text, now_text = call["response_body"], self._stand_in.recorded_url(response.text)
        try:
            (recorded, is_cut), (now, _) = parse(recorded_text), parse(now_text)
        except ValueError:
            size = len(recorded_text.removesuffix(REDACTED))
            is_same = now_text[:size] == recorded_text[:size]
            return [] if is_same else [Difference("body", recorded_text[:200], now_text[:200])]
        if call["path"] == _KEYS and isinstance(now, dict) and isinstance(recorded, dict) and "api_key" in now:
            self._keys[recorded.get("id", "")] = now["api_key"]
        if call["method"] == "HEAD":
            return []
        host_timed = call["path"].startswith(_HOST_TIMED)
        recorded, now = (_without_races(answer, exact=self.report.is_exact) for answer in (recorded, now))
        return self._comparison.differences(recorded, now, is_partial=is_cut, is_host_timed=host_timed)


def _without_races(answer: Any, *, exact: bool) -> Any:
    """Return the answer of an advance or a drain without first deliveries, which either the call or a worker makes.

    If the clock was running, workers may have done everything.
    """
    if isinstance(answer, dict) and isinstance(answer.get("ran"), list):
        start = answer.get("from", answer.get("now"))
        ran = [step for step in answer["ran"] if (step.get("kind"), step.get("at")) != ("delivery_attempt", start)]
        return {**answer, "ran": ran if exact else None, "steps": None}
    return answer


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _id_of(body: str) -> str | None:
    try:
        found, _ = parse(body)
    except ValueError:
        return None
    return found.get("id") if isinstance(found, dict) else None
