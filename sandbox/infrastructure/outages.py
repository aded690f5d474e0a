"""Log an outage of a store once, however many errors it causes."""

import structlog

_log = structlog.get_logger()


class Outage:
    """An outage that may occur repeatedly. `event` and `fields` are logged with its error."""

    def __init__(self, event: str, **fields: object) -> None:
        self._event = event
        self._fields = fields
        self._is_on = False

    def log(self, error: BaseException) -> None:
        """Log an error."""
        # The whole text of an error may contain rows or long statements.
        _log.warning(self._event, error=repr(error)[:300], **self._fields)

    def log_once(self, error: BaseException) -> None:
        """Log the first error after a success."""
        if not self._is_on:
            self.log(error)
        self._is_on = True

    def ended(self) -> None:
        """Note a success."""
        self._is_on = False
