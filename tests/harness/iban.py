"""Valid IBANs."""


def make_iban(bank_iban_code: str, account: str) -> str:
    """Return the Pakistani IBAN of a bank's identifier and a sixteen-character account.

    The check digits are ISO 7064's, calculated in another way than the product's: Python reads letters as numbers.
    """
    remainder = int("".join(str(int(character, 36)) for character in f"{bank_iban_code}{account}PK00")) % 97
    return f"PK{98 - remainder:02d}{bank_iban_code}{account}"
