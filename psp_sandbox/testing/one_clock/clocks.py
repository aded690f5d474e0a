"""The clocks of the applications that a process starts."""

import tempfile
from datetime import datetime
from pathlib import Path

from psp_sandbox.testing.one_clock.clock_file import ClockFile
from psp_sandbox.testing.one_clock.library import build, environment


class Clocks:
    """Makes clock files in a folder where the sandbox finds them. Raises OneClockError if the library cannot be built."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Build it in a separate folder: other processes may build it at the same time.
        self._library = build(Path(tempfile.mkdtemp(prefix="library-", dir=folder)))

    def follow(self, merchant_id: str, api_key: str, now: datetime) -> ClockFile:
        """Return the clocks of an application that follows a merchant's clock, which shows `now`. Its processes share them."""
        path = self._folder / merchant_id
        if path.exists():
            return ClockFile(path)
        clock = ClockFile.create(path)
        clock.follow(api_key, now)
        return clock

    def environment(self, clock: ClockFile) -> dict[str, str]:
        """Return the variables of a process that has these clocks."""
        return environment(self._library, clock.path)
