"""Which idempotency keys are accepted."""

from typing import Final

MAX_KEY_LENGTH: Final = 255
KEY_RULE: Final = f"1 to {MAX_KEY_LENGTH} printable ASCII characters"
"""For messages."""
