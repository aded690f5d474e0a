"""The exceptions that a call can raise. All are subclasses of PspError."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psp_sandbox.client.models import FieldError, Payout, Problem, TimelineEntry


class PspError(Exception):
    """The base of all errors of this client."""


class ProblemError(PspError):
    """The sandbox refused the call. Each code of the API has a subclass in `psp_sandbox.client.problems`."""

    def __init__(self, problem: "Problem") -> None:
        super().__init__(problem)
        self.problem = problem

    @property
    def code(self) -> str:
        """What went wrong, such as INSUFFICIENT_BALANCE."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def title(self) -> str:
        """What the code means."""
        return self.problem.title

    @property
    def detail(self) -> str:
        """What is wrong with this request."""
        return self.problem.detail

    @property
    def errors(self) -> "list[FieldError]":
        """The fields that are not valid. Empty unless the code is VALIDATION_ERROR."""
        return self.problem.errors or []

    @property
    def request_id(self) -> str:
        """The id that the sandbox's journal and logs have of this request."""
        return self.problem.request_id

    def __str__(self) -> str:
        text = self.detail or self.title
        # The detail names most fields that are not valid, without the full stop.
        unnamed = [error for error in self.errors if f"{error.field}: {error.message.rstrip('.')}" not in text]
        fields = "".join(f"\n  {error.field}: {error.message}" for error in unnamed)
        return f"{self.status} {self.code}: {text}{fields} (request id {self.request_id or 'unknown'})"


class Unreachable(PspError):
    """No answer came. A write may or may not have happened: call it again with the same idempotency key to find out."""

    def __init__(self, message: str, idempotency_key: str | None = None) -> None:
        super().__init__(message, idempotency_key)
        self.idempotency_key = idempotency_key

    def __str__(self) -> str:
        return str(self.args[0])


class UnexpectedResponse(PspError):
    """The answer is not what this client understands, for example because something else answers at this URL."""


class NotReached(PspError):
    """A payout reached a final status that is not an awaited one."""

    def __init__(self, payout: "Payout", statuses: tuple[str, ...], timeline: "list[TimelineEntry]", reason: str) -> None:
        super().__init__(payout, statuses, timeline, reason)
        self.payout = payout
        self.statuses = statuses
        self.timeline = timeline
        self.reason = reason

    def __str__(self) -> str:
        path = " -> ".join(entry.to for entry in self.timeline)
        last = self.timeline[-1] if self.timeline else None
        cause = f", the last by {last.cause} at {last.at.isoformat()}" if last else ""
        code = f" ({self.payout.failure_code})" if self.payout.failure_code else ""
        return (
            f"Payout {self.payout.id} is {self.payout.status}{code}, not {' or '.join(self.statuses)}: {self.reason} "
            f"Its statuses: {path}{cause}."
        )


class WaitTimeout(NotReached, TimeoutError):
    """A payout did not reach any of the statuses in time."""
