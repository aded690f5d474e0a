"""Declare pages. Each module of `pages` has a `Pages` object, whose decorators collect its pages."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sandbox.http.responses import Response
from sandbox.server.console.paths import MERCHANT
from sandbox.server.console.view import View

Build = Callable[[View], Awaitable[Response]]
Audience = Literal["anyone", "merchant", "operator"]
"""The visitors who may open a page: everybody, those signed in to the merchant, or the operator."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its path, with parameters in braces, and the function that builds it.

    The path of a merchant's page begins after that of the merchant's first page, whose path is empty.
    """

    path: str
    build: Build
    audience: Audience = "merchant"

    @property
    def route(self) -> str:
        """The whole path, with parameters in braces."""
        return MERCHANT + self.path if self.audience == "merchant" else self.path


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a page that is fetched while a form is filled in, with the form's fields in `view.form`."""

    name: str
    build: Build


class PagePaths:
    """Finds the page that a path belongs to."""

    def __init__(self, pages: Sequence[Page]) -> None:
        # /payouts/new is also a /payouts/{payout_id}.
        exact_first = sorted(pages, key=lambda page: page.path.count("{"))
        self._pages = [(re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", page.route) + r"\Z"), page) for page in exact_first]

    def find(self, path: str, merchant_id: str) -> tuple[Page, dict[str, str]] | None:
        """Return a merchant's page, without an id one outside of merchants, and its path parameters; None if there is none."""
        for pattern, page in self._pages:
            found = pattern.match(path)
            if found is not None and (parameters := found.groupdict()).pop("merchant_id", "") == merchant_id:
                return page, parameters
        return None


class Pages:
    """The pages of one module."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self.fragments: list[Fragment] = []

    def page(self, path: str, audience: Audience = "merchant") -> Callable[[Build], Build]:
        """Declare a page. Its function gets the view and returns `view.render(...)`."""

        def declare(build: Build) -> Build:
            self.pages.append(Page(path, build, audience))
            return build

        return declare

    def fragment(self, name: str) -> Callable[[Build], Build]:
        """Declare a fragment, which a form fetches from `HOME/fragments/NAME` (attribute `data-fragment`)."""

        def declare(build: Build) -> Build:
            self.fragments.append(Fragment(name, build))
            return build

        return declare
