"""API keys. A key names its merchant, so that a lookup needs only that merchant's rows. Pure."""

import re
from typing import Final
from uuid import UUID

KEY_PREFIX: Final = "sk_sandbox_"
SECRET_SIZE: Final = 24
"""Random bytes in a key."""
_WITH_MERCHANT: Final = re.compile(rf"{KEY_PREFIX}([0-9a-f]{{32}})_[0-9a-f]{{{2 * SECRET_SIZE}}}")


def new_api_key(merchant_id: str, secret: bytes) -> str:
    """Return a key: the prefix, the merchant's id without hyphens, and SECRET_SIZE random bytes in hexadecimal.

    The id is not secret. It saves asking every node of a distributed database whose key it is.
    """
    return f"{KEY_PREFIX}{UUID(merchant_id).hex}_{secret.hex()}"


def merchant_of(api_key: str) -> str | None:
    """Return the id of the merchant that a key names; None for a demo key or other text."""
    found = _WITH_MERCHANT.fullmatch(api_key)
    return None if found is None else str(UUID(found[1]))
