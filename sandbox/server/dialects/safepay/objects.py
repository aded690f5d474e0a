"""A payout and what belongs to it, as Safepay writes them."""

import base64
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Final, Generic, TypeVar

import msgspec

from sandbox.domain.clock import parse
from sandbox.domain.fields import one_of
from sandbox.domain.payout import Payout
from sandbox.payouts.directory.account_number import iban_of, looks_like_iban
from sandbox.payouts.directory.account_verification import verify
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.payouts.history import HistoryEntry
from sandbox.server.dialects.safepay.errors import VERSION
from sandbox.server.dialects.safepay.ids import derived, number, prefixed, reference, to_msg_id
from sandbox.server.dialects.safepay.mapping import MAPPING, STATUSES, is_change

D = TypeVar("D")
_BICS: Final = {bic[:4]: bic for bic in MAPPING.banks.values()}
_PAKISTAN: Final = timedelta(hours=5)
_NEVER: Final = "1970-01-01T00:00:00Z"
_ISO_TYPE: Final = "pain.013.001.09"
OWN_NAME: Final = "The aggregator"
_OWN_BANK: Final = "SBPP"
"""The bank of aggregators' own accounts."""


class _Versioned(msgspec.Struct, kw_only=True):
    api_version: str = VERSION


class Envelope(_Versioned, Generic[D]):
    """Every successful response."""

    data: D


class Nothing(msgspec.Struct):
    """The data of a response that has none."""


class TxnLog(msgspec.Struct, kw_only=True):
    """A change of a payment."""

    id: str
    type: str = "TLT_PAYMENT"
    payment_id: str
    status: Annotated[str, one_of(STATUSES)]
    refund_id: str = ""
    settlement_id: str = ""
    txn_desc: str = ""
    addtl_info: str = ""
    token: str
    timestamp: str
    iso_msg_type: str = _ISO_TYPE


class BankAccount(msgspec.Struct, kw_only=True):
    """A bank account. Its IBAN is never shown whole."""

    id: str
    token: str
    vault_token: str
    title: str
    iban: str = ""
    redacted_iban: str
    hashed_iban: str
    servicer: str
    bank: str = ""
    created_at: str
    updated_at: str


class PaymentParty(msgspec.Struct, kw_only=True):
    """The creditor or the debitor of a payment."""

    id: str
    token: str
    role: str
    payment_id: str
    bank_account_id: str
    bank_account: BankAccount
    created_at: str
    updated_at: str


class Payment(msgspec.Struct, kw_only=True):
    """A payment. Numbers are text, unset text is empty, and unset objects are null."""

    id: str
    token: str
    aggregator_id: str
    aggregator_merchant_id: str = ""
    qr_code_id: str = ""
    order_id: str = ""
    type: Annotated[str, one_of(MAPPING.documented["types"])] = "PAYOUT"
    amount: str
    status: Annotated[str, one_of(STATUSES)]
    uetr: str
    trace_reference: str
    msg_id: str
    instr_id: str
    end_to_end_id: str
    pmt_inf_id: str = ""
    request_id: str
    msg_created_at: str
    expires_at: str | None = _NEVER
    created_at: str
    updated_at: str
    txn_logs: list[TxnLog]
    payment_parties: list[PaymentParty]
    qr_code: None = None
    aggregator_merchant: None = None
    # Not a list of anything, which the journal would search for secrets: that takes longer than all the rest of a create.
    refunds: tuple[()] = ()
    settlement: None = None


def aggregator_of(merchant_id: str) -> str:
    """Return a merchant's id as an aggregator."""
    return prefixed("agg", merchant_id)


def payment(directory: Directory, merchant_id: str, payout: Payout, history: Sequence[HistoryEntry]) -> Payment:
    """Return a payout as a payment, with an amount in rupees. `history` has its changes so far, oldest first."""
    token = prefixed("pm", payout.id)
    uetr = str(reference(merchant_id, "uetr", payout.id))
    return Payment(
        id=number(payout.id),
        token=token,
        aggregator_id=aggregator_of(merchant_id),
        amount=rupees(payout.amount),
        status=MAPPING.states[payout.status].status,
        uetr=uetr,
        trace_reference=str(reference(merchant_id, "trace_reference", payout.id)),
        msg_id=to_msg_id(reference(merchant_id, "msg_id", payout.id)),
        instr_id=reference(merchant_id, "instr_id", payout.id).hex,
        end_to_end_id=uetr.replace("-", ""),
        request_id=payout.merchant_reference,
        msg_created_at=_in_pakistan(payout.created_at),
        created_at=seconds(payout.created_at),
        updated_at=seconds(payout.updated_at),
        txn_logs=_logs(token, payout, history),
        payment_parties=[
            _party("ROLE_DEBITOR", merchant_id, payout, own_iban(merchant_id), OWN_NAME),
            _party("ROLE_CREDITOR", merchant_id, payout, creditor_iban(directory, payout), account_title(directory, payout)),
        ],
    )


def _logs(token: str, payout: Payout, history: Sequence[HistoryEntry]) -> list[TxnLog]:
    logs = [
        TxnLog(
            id=number(entry.event_id),
            payment_id=token,
            status=MAPPING.states[entry.status].status,
            token=prefixed("txnlog", entry.event_id),
            timestamp=seconds(entry.at),
        )
        for previous, entry in zip([None, *(entry.status for entry in history)], history, strict=False)
        if is_change(previous, entry.status)
    ]
    if logs and payout.failure_code is not None:
        logs[-1].addtl_info, logs[-1].txn_desc = payout.failure_code, payout.failure_reason or ""
    return logs


def _party(role: str, merchant_id: str, payout: Payout, iban: str, title: str) -> PaymentParty:
    account = bank_account(merchant_id, iban, title, payout.created_at, number(payout.id))
    return PaymentParty(
        id=number(payout.id),
        token=derived("pp", merchant_id, payout.id, role),
        role=role,
        payment_id=prefixed("pm", payout.id),
        bank_account_id=account.token,
        bank_account=account,
        created_at=account.created_at,
        updated_at=account.updated_at,
    )


def bank_account(merchant_id: str, iban: str, title: str, at: str, id_: str) -> BankAccount:
    """Return an account as it is seen by a merchant. One IBAN always has the same tokens."""
    return BankAccount(
        id=id_,
        token=derived("acc", merchant_id, iban),
        vault_token=derived("lock", merchant_id, iban),
        title=title,
        redacted_iban=f"{iban[:8]}{'*' * (len(iban) - 12)}{iban[-4:]}",
        hashed_iban=base64.b64encode(sha256(iban.encode()).digest()).decode(),
        servicer=bic_of(iban),
        created_at=seconds(at),
        updated_at=seconds(at),
    )


def bic_of(iban: str) -> str:
    """Return the BIC of an IBAN's bank: the listed one that begins with its four letters, or one made of them."""
    return _BICS.get(iban[4:8], f"{iban[4:8]}PKKA")


# Cached, because every payment of a merchant has it.
@lru_cache(maxsize=4096)
def own_iban(merchant_id: str) -> str:
    """Return the IBAN of a merchant's own account."""
    return iban_of(_OWN_BANK, str(int(sha256(merchant_id.encode()).hexdigest(), 16) % 10**12))


def account_title(directory: Directory, payout: Payout) -> str:
    """Return the creditor's name: as given, or else as the bank would say."""
    if payout.account_title is not None:
        return payout.account_title
    code = payout.bank_code or payout.wallet_code or ""
    return verify(directory, "BANK" if payout.bank_code else "WALLET", code, payout.account_number).account_title or ""


def creditor_iban(directory: Directory, payout: Payout) -> str:
    """Return the IBAN that a payout goes to, even if it was made with a plain account number."""
    if looks_like_iban(payout.account_number):
        return payout.account_number
    found = directory.bank(payout.bank_code) if payout.bank_code else directory.wallet(payout.wallet_code or "")
    return iban_of("XXXX" if found is None else found.iban_code, payout.account_number)


def rupees(amount: Decimal) -> str:
    """Return an amount in rupees, without decimal places if it is whole."""
    return str(int(amount)) if amount == int(amount) else f"{amount:.2f}"


def paisa(amount: Decimal) -> str:
    """Return an amount in paisa."""
    return str(int(amount * 100))


def seconds(at: str) -> str:
    """Return a time in UTC without its milliseconds."""
    return f"{at[:19]}Z"


def _in_pakistan(at: str) -> str:
    return (parse(at) + _PAKISTAN).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
