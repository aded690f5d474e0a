"""The console's pages. Each module has those of one section."""

from typing import Final

from sandbox.console.pages import merchants, overview, payouts, sign_in
from sandbox.console.routing import Fragment, Page

_MODULES: Final = (overview.pages, sign_in.pages, merchants.pages, payouts.pages)

PAGES: Final[list[Page]] = [page for module in _MODULES for page in module.pages]
FRAGMENTS: Final[list[Fragment]] = [fragment for module in _MODULES for fragment in module.fragments]
