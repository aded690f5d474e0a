"""The folder of an exploration: plans, results and claims, which all processes share and a resumed run reads."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from psp_sandbox.testing.explore.results import PointResult, point_from_json, point_to_json

NAME: Final = ".psp-explore"
"""The folder's name, in the directory where the run was started."""
_POLL_SECONDS: Final = 0.05
_MAX_WAIT_SECONDS: Final = 3600.0


class RunFolder:
    """Files of one exploration. `exploration.json` has the results; worlds of findings are in `worlds`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claims = path / "claims"
        self._plans = path / "plans"
        self._results = path / "results"
        self.worlds = path / "worlds"

    @property
    def summary(self) -> Path:
        """The file with the results of the whole exploration."""
        return self.path / "exploration.json"

    def begin(self, *, resume: bool) -> None:
        """Remove what an earlier run has left, but keep its results if this run resumes it."""
        for folder in (self._claims, self._plans, *(() if resume else (self._results, self.worlds))):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self._claims, self._plans, self._results, self.worlds):
            folder.mkdir(parents=True, exist_ok=True)

    def write_plan(self, worker: str, plan: Mapping[str, Any]) -> None:
        """Store what a worker has planned, for all workers to read."""
        path = self._plans / f"{worker}.json"
        path.with_suffix(".part").write_text(json.dumps(plan), "utf-8")
        path.with_suffix(".part").replace(path)

    def plans(self, workers: int) -> list[dict[str, Any]]:
        """Wait until all workers have planned, and return the plans, an hour at most."""
        deadline = time.monotonic() + _MAX_WAIT_SECONDS
        while len(found := sorted(self._plans.glob("*.json"))) < workers and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return [json.loads(path.read_text("utf-8")) for path in found]

    def has_plan(self, worker: str) -> bool:
        """Whether a worker has planned."""
        return (self._plans / f"{worker}.json").exists()

    def claim(self, number: int) -> bool:
        """Return whether this process is the first to take a number of the plan."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._claims / str(number), os.O_CREAT | os.O_EXCL))
            return True
        return False

    def add(self, worker: str, result: PointResult) -> None:
        """Store a result."""
        with (self._results / f"{worker}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(point_to_json(result)) + "\n")

    def results(self) -> list[PointResult]:
        """Return all results so far. A line that a killed process has not completed is left out."""
        return list(self._read())

    def _read(self) -> Iterator[PointResult]:
        for path in sorted(self._results.glob("*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    yield point_from_json(json.loads(line))

    def count(self) -> int:
        """Return the number of results so far."""
        return sum(path.read_bytes().count(b"\n") for path in self._results.glob("*.jsonl"))
