"""Console sessions: encrypted cookies that say who signed in. They do not contain the key.

A browser has one cookie for each merchant that it signed in to, and one for the operator, so several merchants can be open in
its tabs at the same time. The URL of a page names the merchant, which selects the cookie.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

IDLE_SECONDS: Final = 3600
"""How long a session lasts without a page being opened. Live updates do not count."""
MAX_SECONDS: Final = 12 * 3600
"""The longest time that a session lasts."""
OPERATOR: Final = "operator"
MAX_COOKIE_SIZE: Final = 4000
MAX_MERCHANTS: Final = 10
"""How many merchants a browser can be signed in to at the same time. Proxies refuse requests whose cookies exceed 8 KB."""


class Flash(msgspec.Struct, frozen=True):
    """A message for the next page, such as "Payout cancelled."."""

    text: str
    is_error: bool = False
    merchant_id: str = ""
    """The merchant whose pages show it; empty for pages outside of merchants."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A browser's session. Without a subject, nobody has signed in, and the session only protects the sign-in form."""

    id: str
    csrf: str
    """The secret of the tokens that this session's forms carry. No page contains it."""
    started: float
    """Host time in seconds. With fractions, so that signing out everywhere does not end a session that starts right after."""
    seen: int
    """Host time in seconds at which the last page was opened."""
    subject: str = ""
    """The id of the API key that was used to sign in, or OPERATOR."""
    merchant_id: str = ""
    role: str = ""
    flash: Flash | None = None

    @property
    def is_operator(self) -> bool:
        """Whether the operator's key was used."""
        return self.subject == OPERATOR

    @property
    def token(self) -> str:
        """The token of forms on this session's pages in this merchant. The operator has another in each merchant."""
        return hmac.new(self.csrf.encode(), self.merchant_id.encode(), "sha256").hexdigest()

    @property
    def message(self) -> Flash | None:
        """The message for the pages of this merchant."""
        return self.flash if self.flash is not None and self.flash.merchant_id == self.merchant_id else None

    def within(self, merchant_id: str) -> "Session":
        """Return the operator's session in a merchant; with an empty id, outside of merchants."""
        return msgspec.structs.replace(self, merchant_id=merchant_id, role="admin" if merchant_id else "")

    def saying(self, text: str, now: int, *, is_error: bool = False) -> "Session":
        """Return the session with a message for its next page in this merchant, at the host time `now`."""
        return msgspec.structs.replace(self, flash=Flash(text, is_error, self.merchant_id), seen=now)

    def after_page(self, now: int) -> "Session":
        """Return the session after a page at the host time `now` has shown its message."""
        return msgspec.structs.replace(self, flash=None if self.message else self.flash, seen=now)


@dataclass(frozen=True, slots=True)
class _Read:
    session: Session | None
    is_expired: bool = False


class SessionCodec:
    """Writes sessions as cookies, and reads them.

    The key is derived from the sandbox's secret key and the operator's key, so a new operator's key ends all sessions.
    """

    def __init__(self, secret_key: bytes, admin_key: str) -> None:
        derived = HKDF(hashes.SHA256(), 32, salt=admin_key.encode(), info=b"console sessions").derive(secret_key)
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))
        # Browsers send a host's cookies to all its ports, so each sandbox on a machine needs names of its own.
        self.prefix = f"psp_console_{hashlib.sha256(derived).hexdigest()[:8]}_"

    def __repr__(self) -> str:
        return "SessionCodec(key=<hidden>)"

    def cookie(self, holder: str) -> str:
        """Return the name of the cookie of a holder: a merchant's id, OPERATOR, or an empty string for nobody."""
        return f"{self.prefix}{holder or 'nobody'}"

    def write(self, session: Session) -> str:
        """Return the session as the value of a cookie."""
        return self._fernet.encrypt_at_time(msgspec.json.encode(session), session.seen).decode()

    def read(self, value: str, now: int) -> _Read:
        """Return the session in a cookie's value at the host time `now`, in seconds; None if it is forged or expired."""
        if not value or len(value) > MAX_COOKIE_SIZE:
            return _Read(None)
        try:
            session = msgspec.json.decode(self._fernet.decrypt(value.encode()), type=Session)
        except (InvalidToken, msgspec.MsgspecError, ValueError):
            return _Read(None)
        if is_expired(session, now):
            return _Read(None, is_expired=True)
        return _Read(session)


def holder_of(session: Session) -> str:
    """Return whose cookie the session is in: a merchant's id, OPERATOR, or an empty string for nobody."""
    return OPERATOR if session.is_operator else session.merchant_id


def is_expired(session: Session, now: int) -> bool:
    """Return whether the session has ended by itself at the host time `now`, in seconds."""
    return now - session.seen > IDLE_SECONDS or now - session.started > MAX_SECONDS


def is_token_of(session: Session, given: str) -> bool:
    """Return whether a form's token belongs to the session and its merchant."""
    return hmac.compare_digest(session.token.encode(), given.encode("utf-8", "surrogatepass"))
