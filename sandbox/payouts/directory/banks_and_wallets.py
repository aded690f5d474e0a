"""The banks and wallets that a payout can go to. Pure: `loader.py` reads them from the package's files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypedDict


class BankJson(TypedDict):
    """A bank in `GET /directory`."""

    code: str
    name: str
    iban_code: str
    aliases: list[str]


class WalletJson(TypedDict):
    """A wallet in `GET /directory`."""

    code: str
    name: str


class DirectoryJson(TypedDict):
    """The body of `GET /directory`."""

    banks: list[BankJson]
    wallets: list[WalletJson]


@dataclass(frozen=True, slots=True)
class Bank:
    code: str
    name: str
    iban_code: str
    """Characters 5 to 8 of this bank's IBANs."""
    aliases: tuple[str, ...]
    kind: str
    """`central`, `commercial`, `islamic`, `foreign`, `specialised` or `microfinance`."""


@dataclass(frozen=True, slots=True)
class Wallet:
    code: str
    name: str
    iban_code: str


@dataclass(frozen=True, slots=True)
class Directory:
    banks: tuple[Bank, ...]
    wallets: tuple[Wallet, ...]
    _banks_by_code: Mapping[str, Bank] = field(init=False, repr=False, compare=False)
    _wallets_by_code: Mapping[str, Wallet] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        banks = {code: bank for bank in self.banks for code in (bank.code, *bank.aliases)}
        wallets = {wallet.code: wallet for wallet in self.wallets}
        object.__setattr__(self, "_banks_by_code", MappingProxyType(banks))
        object.__setattr__(self, "_wallets_by_code", MappingProxyType(wallets))

    def bank(self, code: str) -> Bank | None:
        """Return the bank with this code or alias. Case matters: `hbl` finds nothing."""
        return self._banks_by_code.get(code)

    def bank_codes(self) -> list[str]:
        """Return the codes and aliases of all banks."""
        return list(self._banks_by_code)

    def wallet_codes(self) -> list[str]:
        """Return the codes of all wallets."""
        return list(self._wallets_by_code)

    def wallet(self, code: str) -> Wallet | None:
        return self._wallets_by_code.get(code)

    def as_json(self) -> DirectoryJson:
        return {
            "banks": [
                {"code": bank.code, "name": bank.name, "iban_code": bank.iban_code, "aliases": list(bank.aliases)}
                for bank in self.banks
            ],
            "wallets": [{"code": wallet.code, "name": wallet.name} for wallet in self.wallets],
        }
