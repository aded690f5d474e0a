"""The metrics of all processes of a host are readable at any moment."""

from pathlib import Path

import pytest

from sandbox.infrastructure.metrics import exposition


def test_a_file_that_a_killed_process_has_left_empty_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for name in ("counter_1.db", "gauge_livemax_1.db"):
        (tmp_path / name).touch()
    assert exposition() == b""
