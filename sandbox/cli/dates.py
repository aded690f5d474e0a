"""Times that people type as options, and read in tables. All are in UTC unless they say otherwise."""

from contextlib import suppress
from datetime import UTC, datetime

import typer

from sandbox.domain.clock import parse, render


def moment(value: str | None) -> str | None:
    """Return the time in the API's format. A date means 00:00; without an offset, the time is in UTC. Raises BadParameter."""
    if value is None:
        return None
    with suppress(ValueError, OverflowError):
        parse(value)
        return value
    try:
        found = datetime.fromisoformat(value.strip())
        return render(found if found.tzinfo else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{value!r} is not a time; write 2030-01-31, 2030-01-31 12:00 or 2030-01-31T12:00:00Z."
        ) from None


def readable(value: str) -> str:
    """Return a time of the API without its fraction of a second, as `moment` accepts it."""
    return f"{value[:10]} {value[11:19]}Z"
