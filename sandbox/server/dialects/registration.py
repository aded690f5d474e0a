"""The dialects that the sandbox has."""

from typing import Final

from sandbox.server.dialects.safepay import DIALECT as SAFEPAY

BUILT_IN: Final = (SAFEPAY,)
