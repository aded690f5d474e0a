"""The console's paths. Those of a merchant's pages contain its id, so a tab never shows another merchant."""

from typing import Final
from urllib.parse import quote

from sandbox.server.console.session import Session

HOME: Final = "/console"
"""Leads to the merchant that the browser is signed in to."""
SIGN_IN: Final = f"{HOME}/sign-in"
MERCHANTS: Final = f"{HOME}/merchants"
_ANY_MERCHANT: Final = f"{HOME}/m/"
MERCHANT: Final = f"{_ANY_MERCHANT}{{merchant_id}}"
"""The path of a merchant's first page, with which the paths of all its pages begin."""
_PATH_CHARACTERS: Final = "/?&=%:@!$'()*+,;~-._[]"


def home_of(merchant_id: str) -> str:
    """Return the path of a merchant's first page; without an id, that of the console."""
    return MERCHANT.format(merchant_id=merchant_id) if merchant_id else HOME


def is_inside(path: str, home: str) -> bool:
    """Return whether a path, with or without a query, is that of `home` or of a page below it."""
    return path == home or path.startswith((f"{home}/", f"{home}?"))


def merchant_in(path: str) -> str:
    """Return the id of the merchant to which a page belongs, or an empty string."""
    rest = path.removeprefix(_ANY_MERCHANT)
    return "" if rest == path else rest.partition("?")[0].partition("/")[0]


def in_header(path: str) -> str:
    """Return a path as it can be sent in a header: without line breaks or anything else that is not part of a URL."""
    return quote(path, safe=_PATH_CHARACTERS)


def to_sign_in(wanted: str) -> str:
    """Return the path of the sign-in form, which leads to the requested page afterwards."""
    return SIGN_IN if wanted == HOME else f"{SIGN_IN}?next={quote(wanted, safe='/')}"


def landing(session: Session, wanted: str) -> str:
    """Return the page that a new session opens: the requested one if it belongs to the session, or else the first one.

    A link may name no merchant, such as `/console/payouts`. It then is a page of the session's merchant; the operator chooses.
    """
    if not is_inside(wanted, HOME) or is_inside(wanted, SIGN_IN):
        wanted = HOME
    if session.is_operator:
        if merchant_in(wanted) or is_inside(wanted, MERCHANTS):
            return wanted
        return MERCHANTS if wanted == HOME else f"{MERCHANTS}?next={quote(wanted, safe='/')}"
    return in_merchant(wanted, session.merchant_id)


def in_merchant(wanted: str, merchant_id: str) -> str:
    """Return a merchant's page for a link that may name no merchant; its first page for a link to another merchant's."""
    home = home_of(merchant_id)
    if is_inside(wanted, home):
        return wanted
    if not is_inside(wanted, HOME) or merchant_in(wanted) or is_inside(wanted, MERCHANTS):
        return home
    return home + wanted.removeprefix(HOME)
