"""Show the progress while other processes explore."""

import threading
from collections.abc import Callable
from typing import Final

PROGRESS_SECONDS: Final = 10.0


class Progress:
    """Calls a function every few seconds inside a `with` block, from a thread."""

    def __init__(self, show: Callable[[], None]) -> None:
        self._show = show
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="psp-explore-progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(PROGRESS_SECONDS):
            self._show()
