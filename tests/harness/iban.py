"""Valid IBANs."""


def make_iban(bank_iban_code: str, account: str) -> str:
    """Return the Pakistani IBAN for a bank's identifier and a sixteen-character account number.

    The check digits follow ISO 7064. The product calculates them in a different way, so a mistake in one would show.
    """
    remainder = int("".join(str(int(character, 36)) for character in f"{bank_iban_code}{account}PK00")) % 97
    return f"PK{98 - remainder:02d}{bank_iban_code}{account}"
