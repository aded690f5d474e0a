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
    """Return what the payroll believes after one more run, for `pytest --psp-explore`."""
    payroll.run()
    return [(row["reference"], row["status"], row["amount"]) for row in payroll.salaries()]


@pytest.fixture
def psp_status_names() -> dict[str, None]:
    """Return the status of payouts that the sandbox does not have, because it refused them."""
    return {"REFUSED": None}
