"""How a command fails: its exit code, and the problem that it prints."""

import json
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    import httpx


class ExitCode(IntEnum):
    """What a command ends with."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_MET = 4


EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 refused, 2 usage error, 3 unreachable or 5xx, 4 the awaited condition did not happen."
)


class Failure(Exception):
    """Ends a command. `problem` is an object as of RFC 9457; a person gets `sentence` in place of it."""

    def __init__(self, exit_code: ExitCode, problem: dict[str, Any], sentence: str | None = None) -> None:
        super().__init__(problem["detail"])
        self.exit_code = exit_code
        self.problem = problem
        self.sentence = problem["detail"] if sentence is None else sentence

    def show(self, *, as_json: bool) -> None:
        """Print the failure on stderr: for a script as one JSON object, for a person in words."""
        typer.echo(json.dumps(self.problem) if as_json else self.sentence, err=True)


def refused(detail: str, code: str = "REFUSED") -> Failure:
    """The sandbox did what it could, and it is not what was asked for."""
    return Failure(ExitCode.REFUSED, _problem(code, "Refused", 409, detail))


def check_failed(detail: str) -> Failure:
    """A check that was asked for found something wrong."""
    return refused(detail, "CHECK_FAILED")


def usage_error(detail: str) -> Failure:
    """The command line cannot be understood."""
    return Failure(ExitCode.USAGE, _problem("USAGE_ERROR", "Usage error", 400, detail))


def unreachable(detail: str) -> Failure:
    """There is no answer to be had."""
    return Failure(ExitCode.UNREACHABLE, _problem("UNREACHABLE", "Sandbox unreachable", 503, detail))


def not_met(detail: str) -> Failure:
    """What the command waited for did not happen."""
    return Failure(ExitCode.NOT_MET, _problem("CONDITION_NOT_MET", "Condition not met", 408, detail))


def answered_with(response: "httpx.Response") -> Failure:
    """An answer that is no success: its problem verbatim. 4xx is a refusal, anything else a sandbox out of order."""
    exit_code = ExitCode.REFUSED if 400 <= response.status_code < 500 else ExitCode.UNREACHABLE
    try:
        problem = response.json()
        lines = [f"{response.status_code} {problem['code']}: {problem['detail']}"]
        wrong = [f"  {error['field']}: {error['message']}" for error in problem.get("errors", ())]
        # The detail says it of a single field.
        lines += wrong if len(wrong) > 1 else []
    except (ValueError, KeyError, TypeError):
        detail = f"{response.status_code} from {response.request.url}, which is not how a sandbox answers. Check --url."
        return Failure(exit_code, _problem("UNEXPECTED_ANSWER", "Unexpected answer", response.status_code, detail))
    return Failure(exit_code, problem, "\n".join(lines))


def _problem(code: str, title: str, status: int, detail: str) -> dict[str, Any]:
    # The statuses are the nearest that HTTP has: nobody answered with them. `type` tells such problems from the sandbox's.
    kind = f"urn:psp:cli:{code.lower().replace('_', '-')}"
    return {"type": kind, "title": title, "status": status, "detail": detail, "code": code}
