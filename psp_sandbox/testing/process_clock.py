"""The clock of the test's own process, frozen together with the merchant's."""

from datetime import datetime
from typing import TYPE_CHECKING

from psp_sandbox.testing.options import UsageError

if TYPE_CHECKING:
    import time_machine


class ProcessClock:
    """The clock that `time.time`, `datetime.now` and the like read in this process. The monotonic clock always runs."""

    def __init__(self) -> None:
        self._travel: time_machine.travel | None = None
        self._traveller: time_machine.Traveller | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether it is frozen."""
        return self._travel is not None

    def freeze(self, at: datetime) -> None:
        """Freeze it at a time, or move it there. Raises UsageError if time-machine is not installed."""
        if self._travel is not None:
            self.move(at)
            return
        try:
            import time_machine
        except ImportError:
            raise UsageError("psp.freeze(process=True) needs time-machine: pip install 'psp-sandbox[freeze]'.") from None
        self._travel = time_machine.travel(at, tick=False)
        self._traveller = self._travel.start()

    def move(self, to: datetime) -> None:
        """Move it to a time if it is frozen."""
        if self._traveller is not None:
            self._traveller.move_to(to, tick=False)

    def resume(self) -> None:
        """Let it run on from the host's time. Has no effect if it runs."""
        travel, self._travel, self._traveller = self._travel, None, None
        if travel is not None:
            travel.stop()
