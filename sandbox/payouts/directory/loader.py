"""Load the banks and wallets that payouts can go to from the package's data files."""

import functools
import tomllib
from importlib import resources
from typing import Any

from sandbox.payouts.directory.banks_and_wallets import Bank, Directory, Wallet


@functools.cache
def load_directory() -> Directory:
    """Return the directory that ships with the package. Only the first call reads the files."""
    banks = _rows("banks.toml", "banks")
    wallets = _rows("wallets.toml", "wallets")
    return Directory(
        banks=tuple(Bank(**{**row, "aliases": tuple(row["aliases"])}) for row in banks),
        wallets=tuple(Wallet(**row) for row in wallets),
    )


def _rows(file_name: str, table: str) -> list[dict[str, Any]]:
    text = resources.files(__package__).joinpath(file_name).read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = tomllib.loads(text)[table]
    return rows
