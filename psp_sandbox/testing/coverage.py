"""The coverage of the sandbox by a test suite: which states, codes, faults and retries the tests exercised."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.testing.faults import API_KINDS, WEBHOOK_KINDS

if TYPE_CHECKING:
    from psp_sandbox.testing.world import World

STATES: Final = "Payout states"
FAILURE_CODES: Final = "Failure codes"
PROBLEMS: Final = "Problem codes"
FAULTS: Final = "Faults"
RETRIES: Final = "Retries"
CATEGORIES: Final = (STATES, FAILURE_CODES, PROBLEMS, FAULTS, RETRIES)

REPEATED: Final = "call repeated with its idempotency key"
AFTER_ERROR: Final = "call repeated after an error"
AFTER_429: Final = "call repeated after a 429"
DELIVERY_RETRIED: Final = "webhook sent again after a failed attempt"
DELIVERY_RECOVERED: Final = "webhook accepted after a failed attempt"

_NOT_BY_CLIENTS: Final = ("INTERNAL_ERROR",)
"""Problems that no test can cause."""
_PAGE: Final = 100
_MAX_PAGES: Final = 10
"""The maximum number of pages that are read of one test's requests, and of its other lists."""


@dataclass(slots=True)
class Coverage:
    """The names in each category, and the number of tests that exercised each."""

    known: dict[str, list[str]] = field(default_factory=dict)
    tests: dict[str, Counter[str]] = field(default_factory=lambda: {category: Counter() for category in CATEGORIES})

    def observe(self, world: "World") -> None:
        """Add what the test of this world exercised. Raises PspError."""
        if not self.known:
            self.known = _known(world)
        for category, names in _exercised(world).items():
            self.tests[category].update(names)

    def add(self, other: "Coverage") -> None:
        """Add what another process has observed."""
        self.known = self.known or other.known
        for category in CATEGORIES:
            self.tests[category] += other.tests[category]

    def rows(self) -> Iterator[tuple[str, str, int]]:
        """Yield category, name and number of tests, in the order in which the sandbox describes the names."""
        for category in CATEGORIES:
            counts = self.tests[category]
            known = self.known.get(category, [])
            # A name that the sandbox's description does not have, such as a failure code of the suite's own scenarios.
            others = sorted(set(counts) - set(known))
            for name in (*known, *others):
                yield category, name, counts[name]

    def share(self, category: str | None = None) -> tuple[int, int]:
        """Return how many names were exercised and how many there are, in one category or in all."""
        counts = [count for found, _, count in self.rows() if category in (None, found)]
        return sum(count > 0 for count in counts), len(counts)

    @property
    def percent(self) -> float:
        """The percentage of all names that were exercised."""
        exercised, total = self.share()
        return 100 * exercised / total if total else 0.0

    def to_json(self) -> str:
        """Return the coverage as text that `from_json` reads."""
        return json.dumps({"known": self.known, "tests": self.tests})

    @classmethod
    def from_json(cls, text: str) -> "Coverage":
        """Return the coverage from the text of `to_json`."""
        stored = json.loads(text)
        return cls(stored["known"], {category: Counter(stored["tests"][category]) for category in CATEGORIES})

    def as_text(self) -> list[str]:
        """Return the lines of a table for the terminal."""
        rows = list(self.rows())
        if not rows:
            return ["No test used the sandbox."]
        width = max(len(name) for _, name, _ in rows)
        lines = []
        for category in CATEGORIES:
            exercised, total = self.share(category)
            lines.append(f"{category}: {exercised} of {total}")
            lines += [
                f"  {name:<{width}}  {_tests(count) if count else '-'}" for found, name, count in rows if found == category
            ]
        exercised, total = self.share()
        return [*lines, f"{exercised} of {total} exercised ({self.percent:.0f} %)"]

    def as_markdown(self) -> str:
        """Return a summary for a pull request: what was not exercised, and a table that can be opened."""
        exercised, total = self.share()
        lines = [f"### PSP Sandbox: {exercised} of {total} exercised ({self.percent:.0f} %)", ""]
        lines += ["| | exercised | not exercised |", "|---|---|---|"]
        for category in CATEGORIES:
            share, of = self.share(category)
            missing = [name for found, name, count in self.rows() if found == category and not count]
            lines.append(f"| {category} | {share} of {of} | {_names(missing) or 'nothing'} |")
        lines += ["", "<details><summary>Tests by name</summary>", "", "| | name | tests |", "|---|---|---|"]
        lines += [f"| {category} | {_names([name])} | {count} |" for category, name, count in self.rows() if count]
        return "\n".join([*lines, "", "</details>", ""])

    def as_properties(self) -> Iterator[tuple[str, str]]:
        """Yield the names and values of properties for a JUnit report."""
        for category in CATEGORIES:
            key = f"psp.{category.lower().replace(' ', '_')}"
            exercised, total = self.share(category)
            missing = [name for found, name, count in self.rows() if found == category and not count]
            yield key, f"{exercised}/{total}"
            yield f"{key}.not_exercised", ", ".join(missing)
        yield "psp.exercised_percent", f"{self.percent:.1f}"


def _known(world: "World") -> dict[str, list[str]]:
    document = world.request("GET", "/openapi.json").json()
    catalogue = world.request("GET", "/sandbox/v1/catalogue").json()
    return {
        STATES: document["components"]["schemas"]["Payout"]["properties"]["status"]["enum"],
        FAILURE_CODES: [meaning["code"] for meaning in catalogue["failure_codes"]],
        PROBLEMS: sorted(_problem_codes(document)),
        FAULTS: [*_fault_names("api", API_KINDS), *_fault_names("webhooks", WEBHOOK_KINDS)],
        RETRIES: [REPEATED, AFTER_ERROR, AFTER_429, DELIVERY_RETRIED, DELIVERY_RECOVERED],
    }


def _problem_codes(document: Mapping[str, Any]) -> set[str]:
    """Return the codes of all problems that an operation can respond with; a response is named `404.NOT_FOUND`."""
    names = ".".join(document["components"]["responses"])
    return {code for code in names.split(".") if code.isupper()} - set(_NOT_BY_CLIENTS)


def _exercised(world: "World") -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {category: set() for category in CATEGORIES}
    for event in _items(world, "/api/v1/events"):
        payout = event["data"]
        if event["payout_id"] is not None:
            found[STATES].add(payout["status"])
            if payout.get("failure_code"):
                found[FAILURE_CODES].add(payout["failure_code"])
    for delivery in _items(world, "/api/v1/webhook-deliveries"):
        if delivery["attempt_count"] > 1:
            found[RETRIES].add(DELIVERY_RETRIED)
            if delivery["status"] == "SUCCEEDED":
                found[RETRIES].add(DELIVERY_RECOVERED)
    # The list of requests may lack the newest ones for a moment. An export waits for them, and has them in order.
    journal = world.request("GET", "/sandbox/v1/world").json()["journal"]["calls"]
    # A webhook that a fault changed is in the journal too; its path is a URL.
    calls = [call for call in journal if call["path"].startswith("/")]
    found[PROBLEMS].update(filter(None, map(_problem_of, calls)))
    found[FAULTS].update(f"api: {call['fault']['kind']}" for call in calls if call["fault"])
    found[RETRIES].update(_repetitions(calls))
    ended = [(fault.target, fault.kind) for fault in world.faults if fault.hit]
    active = [(fault["target"], fault["kind"]) for fault in _items(world, "/sandbox/v1/faults") if fault["hits"]]
    found[FAULTS].update(f"{target}: {kind}" for target, kind in (*ended, *active))
    return found


def _repetitions(calls: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    earlier: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for call in calls:
        if call["idempotency_key"] is None:
            continue
        of = (call["method"], call["path"], call["idempotency_key"])
        before = earlier.get(of)
        earlier[of] = call
        if before is None:
            continue
        yield REPEATED
        # A fault can have cut off the answer of a call that the journal shows as successful.
        if before["status"] == 429:
            yield AFTER_429
        elif before["status"] >= 500 or before["fault"]:
            yield AFTER_ERROR


def _problem_of(call: Mapping[str, Any]) -> str | None:
    if call["status"] < 400:
        return None
    try:
        problem = json.loads(call["response_body"])
    except ValueError:  # cut off, or replaced by a fault
        return None
    code = problem.get("code") if isinstance(problem, dict) else None
    return code if isinstance(code, str) else None


def _items(world: "World", path: str) -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {"limit": _PAGE}
    for _ in range(_MAX_PAGES):
        page = world.request("GET", path, params=query).json()
        yield from page["data"]
        if not page["has_more"]:
            return
        query["cursor"] = page["next_cursor"]


def _fault_names(target: str, kinds: Iterable[str]) -> list[str]:
    return [f"{target}: {kind}" for kind in kinds]


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _tests(count: int) -> str:
    return f"{count} test{'s' if count != 1 else ''}"
