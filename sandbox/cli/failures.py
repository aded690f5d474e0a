"""Failures of commands: their exit codes, and the problems that they print."""

import json
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    import httpx


class ExitCode(IntEnum):
    """The exit code of a command."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_MET = 4


EXIT_CODES: Final = "Exit codes: 0 done, 1 refused, 2 usage error, 3 sandbox unreachable or 5xx, 4 awaited condition not met."


class Failure(Exception):
    """Ends a command. `problem` is an RFC 9457 object, printed with --json; otherwise `sentence` is printed."""

    def __init__(self, exit_code: ExitCode, problem: dict[str, Any], sentence: str | None = None) -> None:
        super().__init__(problem["detail"])
        self.exit_code = exit_code
        self.problem = problem
        self.sentence = problem["detail"] if sentence is None else sentence

    def without(self, advice: str) -> "Failure":
        """Return the same failure without a part of its detail, for example advice that does not concern the caller."""
        detail = self.problem["detail"].replace(advice, "").rstrip()
        return Failure(self.exit_code, {**self.problem, "detail": detail}, self.sentence.replace(advice, "").rstrip())

    def show(self, *, as_json: bool) -> None:
        """Print the failure to stderr, as one JSON object or as text."""
        typer.echo(json.dumps(self.problem) if as_json else self.sentence, err=True)


def refused(detail: str, code: str = "REFUSED") -> Failure:
    """Return a failure: the request was refused or not fully executed."""
    return Failure(ExitCode.REFUSED, _problem(code, "Refused", 409, detail))


def check_failed(detail: str) -> Failure:
    """Return a failure: a check found a problem."""
    return refused(detail, "CHECK_FAILED")


def usage_error(detail: str) -> Failure:
    """Return a failure: the command line is wrong."""
    return Failure(ExitCode.USAGE, _problem("USAGE_ERROR", "Usage error", 400, detail))


def unreachable(detail: str) -> Failure:
    """Return a failure: the sandbox is unreachable."""
    return Failure(ExitCode.UNREACHABLE, _problem("UNREACHABLE", "Sandbox unreachable", 503, detail))


def not_met(detail: str) -> Failure:
    """Return a failure: the condition that the command waited for was not met."""
    return Failure(ExitCode.NOT_MET, _problem("CONDITION_NOT_MET", "Condition not met", 408, detail))


def failed_response(response: "httpx.Response") -> Failure:
    """Return a failure with a response's problem. A status other than 4xx counts as unreachable."""
    exit_code = ExitCode.REFUSED if 400 <= response.status_code < 500 else ExitCode.UNREACHABLE
    try:
        problem = response.json()
        lines = [f"{response.status_code} {problem['code']}: {problem['detail']}"]
        errors = [f"{error['field']}: {error['message']}" for error in problem.get("errors", ())]
        # The detail contains the first ones, without the full stop.
        lines += [f"  {error}" for error in errors if error.rstrip(".") not in problem["detail"]]
    except (ValueError, KeyError, TypeError):
        detail = f"Unexpected response {response.status_code} from {response.request.url}: not a sandbox? Check --url."
        return Failure(exit_code, _problem("UNEXPECTED_ANSWER", "Unexpected response", response.status_code, detail))
    return Failure(exit_code, problem, "\n".join(lines))


def _problem(code: str, title: str, status: int, detail: str) -> dict[str, Any]:
    # No server sent these statuses; they are the nearest ones of HTTP. `type` distinguishes these problems from the API's.
    kind = f"urn:psp:cli:{code.lower().replace('_', '-')}"
    return {"type": kind, "title": title, "status": status, "detail": detail, "code": code}
