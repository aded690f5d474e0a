"""The payroll, against a sandbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from psp_sandbox.testing import World

from ..payroll import Payroll


@pytest.fixture
def payroll(psp: World, tmp_path: Path) -> Iterator[Payroll]:
    """Return a payroll without salaries."""
    payroll = Payroll(tmp_path / "payroll.db", psp.url, psp.api_key)
    yield payroll
    payroll.close()


@pytest.fixture
def psp_books(payroll: Payroll) -> list[tuple[str, str, str]]:
    """Return what the payroll believes after one more run, for `pytest --psp-explore`. What was refused is not at the PSP."""
    payroll.run()
    rows = payroll.salaries()
    return [(row["reference"], row["status"], row["amount"]) for row in rows if row["status"] != "REFUSED"]
