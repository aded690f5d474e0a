"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A bank in `GET /directory`."""

    aliases: list[str]
    code: str
    iban_code: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """A wallet in `GET /directory`."""

    code: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """The body of `GET /directory`."""

    banks: list[Bank]
    wallets: list[Wallet]
