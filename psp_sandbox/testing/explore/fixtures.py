"""Get the values of the fixtures that a project defines for explore."""

from typing import Any

import pytest


class Fixtures:
    """The fixtures that a user may define for explore, requested when the test has ended."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def has(self, name: str) -> bool:
        """Whether the project defines the fixture, and the test already uses all fixtures that it needs."""
        manager = self._item.session._fixturemanager
        found = manager.getfixturedefs(name, self._item) or ()
        needed = [argument for one in found[-1:] for argument in one.argnames if argument != "request"]
        used = getattr(self._item, "fixturenames", ())
        return len(found) > 0 and all(argument in used for argument in needed)

    def value(self, name: str, *, again: bool = False) -> Any:
        """Return its value, or None if it is not there. With `again`, it is computed again."""
        if not self.has(name):
            return None
        request: Any = self._item._request  # type: ignore[attr-defined]  # as plugins that repeat tests do
        if again:
            for one in self._item.session._fixturemanager.getfixturedefs(name, self._item) or ():
                one.finish(request)
            request._fixture_defs.pop(name, None)
        return request.getfixturevalue(name)
