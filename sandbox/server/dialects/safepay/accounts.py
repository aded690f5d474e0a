"""The aggregator and its ledger account, and account validation."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.errors import Problem, invalid
from sandbox.http.operation import parameter
from sandbox.http.request import Request
from sandbox.payouts.directory.account_number import check_iban, iban_of
from sandbox.payouts.directory.account_verification import Verification, verify
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.server.dialects.dialect import Services
from sandbox.server.dialects.safepay.declared import operation
from sandbox.server.dialects.safepay.ids import derived
from sandbox.server.dialects.safepay.mapping import MAPPING
from sandbox.server.dialects.safepay.objects import (
    OWN_NAME,
    BankAccount,
    Envelope,
    aggregator_of,
    bank_account,
    bic_of,
    own_iban,
    paisa,
    seconds,
)

_NUMBER: Final = re.compile(r"[0-9]{1,16}")
_OPENED: Final = "2026-01-01T00:00:00.000Z"
_ALIAS_BANK: Final = "HABB"
_AliasType = Literal["MOBILE", "RAAST_ID", "TILL_CODE", "EMAIL", "CNIC"]
_ALIAS_TYPES: Final = get_args(_AliasType)
_IBAN: Final = parameter("iban", "A Pakistani IBAN.", type="string", minLength=1, maxLength=34)


class OwnBankAccount(BankAccount, kw_only=True):
    """The aggregator's own bank account. Its IBAN is shown."""

    depositor_id: str
    owner: str = "raast"
    kind: int = 5
    version: str = "v1"


class Aggregator(msgspec.Struct, kw_only=True):
    """The merchant as an aggregator."""

    id: str
    token: str
    partner_id: str
    bank_account_id: str
    name: str
    is_active: bool = True
    is_super: bool = False
    vault_enabled: bool = False
    bank_account: OwnBankAccount
    keys: list[str] = []
    created_at: str
    updated_at: str


class Title(msgspec.Struct, kw_only=True):
    """The holder of an account. `statusCode` is 0 if the account can be paid, and 1 otherwise."""

    statusCode: Literal[0, 1]
    acctitle: str
    acctype: str = "Account"


class TitleAndIban(Title, kw_only=True):
    """The holder of an account, and its IBAN."""

    iban: str


class AccountInfo(msgspec.Struct, kw_only=True):
    """An account that an IBAN or an alias leads to."""

    iban: str
    type: str = "CAS_CONST_UNSPECIFIED"
    currency: str = "PKR"
    servicer_member_id: str
    name: str
    is_default: bool = True
    dba: str = ""
    mcc: str = ""
    account_title: str
    account_type: str = "Account"


class AccountInfoBody(msgspec.Struct, kw_only=True):
    """What is looked up. The specification allows it in the body of the GET too; the query comes first."""

    iban: Annotated[str, msgspec.Meta(min_length=1, max_length=34)] | UnsetType = UNSET
    with_title_fetch: bool | UnsetType = UNSET
    alias_type: _AliasType | UnsetType = UNSET
    alias_value: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | UnsetType = UNSET


class LedgerAccount(msgspec.Struct, kw_only=True):
    """The aggregator's balance, in paisa. `running_balance` is what locked payouts hold, as a negative number."""

    id: str
    token: str
    account_type: str = "ACCT_AGGREGATOR"
    account_name: str
    normal_balance: str = "SIDE_CREDIT"
    balance: str
    currency: str = "PKR"
    running_balance: str
    vault_token: Annotated[str, msgspec.Meta(description="The vault's token of the aggregator's own bank account.")]
    bank_acct_id: str
    external_partner_id: str
    external_aggregator_id: str
    external_merchant_id: str = ""
    created_at: str
    updated_at: str


class AccountApi:
    """The operations on accounts."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._directory = services.directory

    @operation("GET", "", "Get the aggregator", Aggregator)
    async def get_aggregator(self, request: Request, aggregator_id: str) -> Envelope[Aggregator]:
        own = _own_account(request.merchant_id)
        fields = msgspec.structs.asdict(own) | {"iban": own_iban(request.merchant_id)}
        return Envelope(
            Aggregator(
                id="1",
                token=aggregator_id,
                partner_id=derived("partner", request.merchant_id),
                bank_account_id=own.token,
                name=OWN_NAME,
                bank_account=OwnBankAccount(**fields, depositor_id=derived("dep", request.merchant_id)),
                created_at=seconds(_OPENED),
                updated_at=seconds(_OPENED),
            )
        )

    @operation("GET", "/ledger/accounts", "Get the ledger account", LedgerAccount)
    async def get_ledger_account(self, request: Request, aggregator_id: str) -> Envelope[LedgerAccount]:
        merchant_id = request.merchant_id
        own, balance = _own_account(merchant_id), await self._services.balance.get_balance(merchant_id)
        return Envelope(
            LedgerAccount(
                id="1",
                token=derived("acct", merchant_id),
                account_name=OWN_NAME,
                balance=paisa(balance.available_balance),
                running_balance=paisa(-balance.locked_balance),
                vault_token=own.vault_token,
                bank_acct_id=own.token,
                external_partner_id=derived("partner", merchant_id),
                external_aggregator_id=aggregator_of(merchant_id),
                created_at=seconds(_OPENED),
                updated_at=seconds(balance.updated_at),
            )
        )

    @operation("GET", "/title-fetch", "Get the holder of an IBAN", Title, query=(_IBAN,))
    async def fetch_title(self, request: Request, aggregator_id: str) -> Envelope[Title]:
        return Envelope(_title(holder_of(self._directory, _required(request.query, "iban"), "iban")))

    @operation(
        "GET", "/title-fetch/v2", "Get the holder of an account number", TitleAndIban,
        query=(
            parameter("account_number", "At most 16 digits.", type="string", pattern="^[0-9]{1,16}$"),
            parameter("bank_name", "A bank's name.", type="string", enum=list(MAPPING.banks)),
        ),
    )  # fmt: skip
    async def fetch_title_of_account(self, request: Request, aggregator_id: str) -> Envelope[TitleAndIban]:
        number, bic = _required(request.query, "account_number"), MAPPING.banks[_required(request.query, "bank_name")]
        if not _NUMBER.fullmatch(number):
            raise invalid("account_number", "must have 1 to 16 digits")
        iban = iban_of(bic[:4], number)
        title = _title(holder_of(self._directory, iban, "bank_name"))
        return Envelope(TitleAndIban(**msgspec.structs.asdict(title), iban=iban))

    @operation(
        "GET", "/title-fetch/alias", "Get the account of an alias", AccountInfo,
        query=(
            parameter("type", "The alias's type.", type="string", enum=list(_ALIAS_TYPES)),
            parameter("value", "The alias.", type="string", minLength=1, maxLength=64),
        ),
    )  # fmt: skip
    async def fetch_alias(self, request: Request, aggregator_id: str) -> Envelope[AccountInfo]:
        kind, value = _required(request.query, "type"), _required(request.query, "value")
        return Envelope(_info(holder_of(self._directory, _iban_of_alias(kind, value), "value")))

    @operation(
        "GET", "/account-info", "Get the account of an IBAN or an alias", AccountInfo, AccountInfoBody,
        query=(
            _IBAN,
            parameter("with_title_fetch", "Whether to name its holder.", type="string", enum=["true", "false"]),
            parameter("alias_type", "The alias's type.", type="string", enum=list(_ALIAS_TYPES)),
            parameter("alias_value", "The alias.", type="string", minLength=1, maxLength=64),
        ),
    )  # fmt: skip
    async def get_account_info(self, request: Request, aggregator_id: str, body: AccountInfoBody) -> Envelope[AccountInfo]:
        given = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
        given |= request.query
        if "iban" not in given and "alias_type" not in given:
            raise invalid("iban", "or alias_type and alias_value is required")
        iban = given.get("iban") or _iban_of_alias(_required(given, "alias_type"), _required(given, "alias_value"))
        found = _info(holder_of(self._directory, iban, "iban"))
        if given.get("with_title_fetch") in (False, "false"):
            found.account_title = ""
        return Envelope(found)


def holder_of(directory: Directory, iban: str, field: str) -> Verification:
    """Return who holds an IBAN, as the bank says. Raises VALIDATION_ERROR for `field` if it is not the IBAN of a known bank."""
    if check_iban(iban, None) is not None:
        raise invalid(field, "must be a valid Pakistani IBAN of 24 characters")
    code = iban[4:8]
    bank = next((bank for bank in directory.banks if bank.iban_code == code), None)
    if bank is not None:
        return verify(directory, "BANK", bank.code, iban)
    wallet = next((wallet for wallet in directory.wallets if wallet.iban_code == code), None)
    if wallet is None:
        raise invalid(field, "must belong to a known bank")
    return verify(directory, "WALLET", wallet.code, iban)


def _required(given: Mapping[str, Any], name: str) -> str:
    if name not in given:
        raise invalid(name, "is required")
    found: str = given[name]
    return found


def _title(found: Verification) -> Title:
    return Title(statusCode=0 if found.valid else 1, acctitle=found.account_title or "")


def _info(found: Verification) -> AccountInfo:
    if not found.valid:
        raise Problem("NOT_FOUND")
    iban, title = found.account_number, found.account_title or ""
    return AccountInfo(iban=iban, servicer_member_id=bic_of(iban), name=title, account_title=title)


def _iban_of_alias(kind: str, value: str) -> str:
    """Return the IBAN that an alias always leads to. Its last four digits are the alias's, so that they choose a scenario."""
    figures = "".join(character for character in value if character in "0123456789")
    seed = derived("alias", kind, value).replace("-", "")
    number = int(seed.rpartition("_")[2][:8], 16) % 10**8
    return iban_of(_ALIAS_BANK, f"{number}{figures[-4:].rjust(4, '0')}")


def _own_account(merchant_id: str) -> BankAccount:
    return bank_account(merchant_id, own_iban(merchant_id), OWN_NAME, _OPENED, "1")
