"""The directory of banks and wallets, IBANs, account numbers, and account verification."""

import json
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox.payouts.directory.account_number import (
    check_account_number,
    check_iban,
    looks_like_iban,
    scenario_suffix,
)
from sandbox.payouts.directory.account_verification import verify
from sandbox.payouts.directory.banks_and_wallets import Bank, Wallet
from sandbox.payouts.directory.loader import load_directory
from tests.harness.iban import make_iban

DIRECTORY = load_directory()
ENTRIES: list[Bank | Wallet] = [*DIRECTORY.banks, *DIRECTORY.wallets]

VALID_IBANS = [
    ("PK36SCBL0000001123456702", "SCBL"),
    ("PK24MUCB0646609971000177", "MUCB"),
    ("PK66HABB0000001234567890", "HABB"),
    ("PK56MEZN0001234567890123", "MEZN"),
]

bank_iban_codes = st.text(string.ascii_uppercase, min_size=4, max_size=4)
accounts = st.text(string.ascii_uppercase + string.digits, min_size=16, max_size=16)
ibans = st.builds(make_iban, bank_iban_codes, accounts)


# The directory.


@pytest.mark.parametrize("code", ["", "hbl", "Hbl", " HBL", "HBL\n", "HABB", "EASYPAISA", "NOSUCHBANK"])
def test_a_bank_code_is_matched_exactly(code: str) -> None:
    assert DIRECTORY.bank(code) is None


@pytest.mark.parametrize("code", ["", "easypaisa", "EASYPAISA ", "HBL"])
def test_a_wallet_code_is_matched_exactly(code: str) -> None:
    assert DIRECTORY.wallet(code) is None


def test_codes_and_aliases_are_unique() -> None:
    codes = [code for bank in DIRECTORY.banks for code in (bank.code, *bank.aliases)]
    assert len(codes) == len(set(codes))
    assert len(DIRECTORY.wallets) == len({wallet.code for wallet in DIRECTORY.wallets})


def test_iban_identifiers_are_unique() -> None:
    identifiers = [entry.iban_code for entry in ENTRIES]
    assert len(identifiers) == len(set(identifiers))


def test_the_data_is_well_formed() -> None:
    for bank in DIRECTORY.banks:
        assert all(re.fullmatch(r"[A-Z0-9]{2,20}", code) for code in (bank.code, *bank.aliases)), bank
        assert bank.kind in {"central", "commercial", "islamic", "foreign", "specialised", "microfinance"}, bank
    assert [bank.code for bank in DIRECTORY.banks if bank.kind == "central"] == ["SBP"]
    for wallet in DIRECTORY.wallets:
        assert re.fullmatch(r"[A-Z0-9]{2,20}", wallet.code), wallet
    for entry in ENTRIES:
        assert re.fullmatch(r"[A-Z]{4}", entry.iban_code), entry
        assert entry.name.strip() == entry.name != "", entry


def test_the_directory_is_loaded_once() -> None:
    assert load_directory() is DIRECTORY


def test_the_directory_has_the_documented_json_form() -> None:
    body = json.loads(json.dumps(DIRECTORY.as_json()))
    assert set(body) == {"banks", "wallets"}
    assert {
        "code": "BAHL",
        "name": "Bank AL Habib Limited",
        "iban_code": "BAHL",
        "aliases": ["BANKALHABIB"],
    } in body["banks"]
    assert {"code": "JAZZCASH", "name": "JazzCash"} in body["wallets"]
    assert len(body["banks"]) == len(DIRECTORY.banks)
    assert len(body["wallets"]) == len(DIRECTORY.wallets)


# IBANs.


@pytest.mark.parametrize(("iban", "bank_iban_code"), VALID_IBANS)
def test_a_valid_iban_is_accepted(iban: str, bank_iban_code: str) -> None:
    assert looks_like_iban(iban)
    assert check_iban(iban, bank_iban_code) is None
    assert check_iban(iban, None) is None
    assert check_account_number(iban, bank_iban_code) is None
    assert make_iban(bank_iban_code, iban[8:]) == iban


@pytest.mark.parametrize(
    ("text", "explanation"),
    [
        ("PK36SCBL0000001123456703", "check digits"),
        ("PK27MPBL1181017140122674", "check digits"),
        ("PK63SCBL0000001123456702", "check digits"),
        ("pk36scbl0000001123456702", "capitals"),
        ("PK36scbl0000001123456702", "capitals"),
        ("PK36 SCBL 0000 0011 2345 6702", "without spaces"),
        ("PK36-SCBL-0000-0011-2345-6702", "dashes"),
        ("PK36SCBL0000001123456702\n", "only the letters"),
        (" PK36SCBL0000001123456702", "only the letters"),
        ("PK36SCBL000000112345670\N{ARABIC-INDIC DIGIT TWO}", "only the letters"),
        ("PK36SCBL000000112345670\N{FULLWIDTH DIGIT TWO}", "only the letters"),
        ("PK36SCB\N{CYRILLIC CAPITAL LETTER ES}0000001123456702", "only the letters"),
        ("PK36SCBL000000112345670\N{SUPERSCRIPT TWO}", "only the letters"),
        ("PK36SCBL000000112345670\0", "only the letters"),
        ("PK36SCBL000000112345670", "has 23"),
        ("PK36SCBL00000011234567020", "has 25"),
        ("PK", "has 2"),
        ("", "starts with PK"),
        ("GB29NWBK60161331926819", "starts with PK"),
        ("PKA6SCBL0000001123456702", "two check digits"),
        ("PK36SC1L0000001123456702", "four letters"),
        ("PK3600000000000112345670", "four letters"),
    ],
)
def test_an_invalid_iban_is_explained_in_one_sentence(text: str, explanation: str) -> None:
    problem = check_iban(text, None)
    assert problem is not None
    assert explanation in problem
    assert problem.endswith(".")
    assert problem.count(".") == 1


def test_an_iban_of_another_bank_is_refused() -> None:
    problem = check_iban("PK36SCBL0000001123456702", "HABB")
    assert problem is not None
    assert "SCBL" in problem
    assert "HABB" in problem
    assert check_account_number("PK36SCBL0000001123456702", "HABB") == problem


@pytest.mark.parametrize(("check_digits", "congruent"), [(97, "00"), (98, "01"), (2, "99")])
def test_check_digits_below_02_or_above_98_are_refused(check_digits: int, congruent: str) -> None:
    # 00 and 97, 01 and 98, and 02 and 99 are congruent modulo 97, so only the check of the range refuses these IBANs.
    iban = next(
        candidate
        for candidate in (make_iban("HABB", f"{number:016d}") for number in range(10_000))
        if candidate[2:4] == f"{check_digits:02d}"
    )
    assert check_iban(iban, None) is None
    assert check_iban(f"PK{congruent}{iban[4:]}", None) is not None


@given(ibans, st.data())
def test_changing_one_digit_makes_an_iban_invalid(iban: str, data: st.DataObject) -> None:
    position = data.draw(st.sampled_from([at for at, character in enumerate(iban) if character.isdigit()]))
    digit = data.draw(st.sampled_from(string.digits.replace(iban[position], "")))
    assert check_iban(iban[:position] + digit + iban[position + 1 :], None) is not None


@given(ibans, st.data())
def test_changing_one_letter_makes_an_iban_invalid(iban: str, data: st.DataObject) -> None:
    position = data.draw(st.sampled_from([at for at, character in enumerate(iban) if character.isalpha()]))
    letter = data.draw(st.sampled_from(string.ascii_uppercase.replace(iban[position], "")))
    assert check_iban(iban[:position] + letter + iban[position + 1 :], None) is not None


@given(bank_iban_codes, st.from_regex(r"[0-9]{16}", fullmatch=True), st.integers(min_value=8, max_value=22))
def test_swapping_two_adjacent_digits_makes_an_iban_invalid(bank_iban_code: str, account: str, at: int) -> None:
    iban = make_iban(bank_iban_code, account)
    assume(iban[at] != iban[at + 1])
    swapped = iban[:at] + iban[at + 1] + iban[at] + iban[at + 2 :]
    assert check_iban(swapped, None) is not None


@given(st.text())
def test_no_text_makes_a_check_raise_an_exception(text: str) -> None:
    check_iban(text, "HABB")
    check_account_number(text, "HABB")
    scenario_suffix(text)


# Account numbers.


@pytest.mark.parametrize("text", ["0000000000", "03001234567", "1234567890123456", "PK66HABB0000001234567890"])
def test_a_valid_account_number_is_accepted(text: str) -> None:
    assert check_account_number(text, "HABB") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "123456789",
        "12345678901234567",
        "12345678901\n",
        "\n12345678901",
        " 1234567890",
        "1234 567890",
        "1234-567890",
        "+923001234567",
        "-1234567890",
        "1234567890.0",
        "1e10000000",
        "12345_67890",
        "12345678AB",
        "\N{ARABIC-INDIC DIGIT ONE}" * 12,
        "\N{FULLWIDTH DIGIT ONE}" * 12,
        "\N{SUPERSCRIPT TWO}" * 12,
        "123456789\N{DEVANAGARI DIGIT FOUR}",
        "1234567890\0",
        "pk66habb0000001234567890",
        "Pk66HABB0000001234567890",
        "GB29NWBK60161331926819",
        "PK66HABB0000001234567891",
        "PK66HABB000000123456789",
        "PK66HABB0000001234567890\n",
        "PK1234567890",
    ],
)
def test_an_invalid_account_number_is_explained_in_one_sentence(text: str) -> None:
    problem = check_account_number(text, "HABB")
    assert problem is not None
    assert problem.endswith(".")
    assert problem.count(".") == 1


@pytest.mark.parametrize(
    ("account_number", "suffix"),
    [
        ("1234567890", "7890"),
        ("1234567890120003", "0003"),
        ("PK36SCBL0000001123456702", "6702"),
        (make_iban("HABB", "ABCDEFGHIJKL0005"), "0005"),
        (make_iban("HABB", "000000000000000A"), ""),
        (make_iban("HABB", "000000000003A003"), ""),
        ("123456789\N{ARABIC-INDIC DIGIT TWO}", ""),
        ("1234560003\n", ""),
        ("003", ""),
        ("", ""),
    ],
)
def test_the_last_four_digits_select_the_scenario(account_number: str, suffix: str) -> None:
    assert scenario_suffix(account_number) == suffix


# Account verification.


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        ("0001", None),
        ("0002", None),
        ("0003", "BANK_REJECTED"),
        ("0004", None),
        ("0005", "ACCOUNT_BLOCKED"),
        ("0006", "ACCOUNT_NOT_FOUND"),
        ("0007", "ACCOUNT_CLOSED"),
        ("0008", "ACCOUNT_BLOCKED"),
        ("0009", None),
        ("0010", None),
        ("9999", None),
    ],
)
@pytest.mark.parametrize("prefix", ["123456", "123456789012"])
def test_the_suffix_decides_whether_an_account_is_valid(prefix: str, suffix: str, reason: str | None) -> None:
    for account_number in (prefix + suffix, make_iban("HABB", prefix.zfill(12) + suffix)):
        result = verify(DIRECTORY, "BANK", "HBL", account_number)
        assert (result.valid, result.reason) == (reason is None, reason)
        assert (result.account_title is None) == (reason is not None)
        assert result.account_number == account_number


def test_the_account_title_never_changes() -> None:
    # The literal titles ensure that every process, day and Python version gives the same result.
    assert verify(DIRECTORY, "BANK", "HBL", "1234567890").account_title == "FATIMA SHEIKH"
    assert verify(DIRECTORY, "WALLET", "JAZZCASH", "1234567890").account_title == "FATIMA SHEIKH"


@given(st.from_regex(r"[0-9]{10,16}", fullmatch=True))
def test_an_account_title_is_a_name_in_capitals(account_number: str) -> None:
    title = verify(DIRECTORY, "BANK", "HBL", account_number).account_title
    assert title is None or re.fullmatch(r"[A-Z]+ [A-Z]+", title)


def test_accounts_have_many_different_titles() -> None:
    titles = {verify(DIRECTORY, "BANK", "HBL", f"{number:012d}").account_title for number in range(1000, 2000)}
    assert len(titles) > 300


def test_an_alias_is_verified_as_the_banks_own_code() -> None:
    result = verify(DIRECTORY, "BANK", "BANKALHABIB", "1234567890")
    assert (result.dest_type, result.bank_code, result.wallet_code) == ("BANK", "BAHL", None)


def test_a_wallet_is_verified_with_its_code() -> None:
    result = verify(DIRECTORY, "WALLET", "EASYPAISA", "03001234567")
    assert (result.dest_type, result.bank_code, result.wallet_code) == ("WALLET", None, "EASYPAISA")


def test_verifying_an_unknown_destination_raises_lookup_error() -> None:
    with pytest.raises(LookupError, match="NOSUCH"):
        verify(DIRECTORY, "BANK", "NOSUCH", "1234567890")
    with pytest.raises(LookupError, match="HBL"):
        verify(DIRECTORY, "WALLET", "HBL", "1234567890")
