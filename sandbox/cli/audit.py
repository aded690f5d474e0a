"""`psp audit`: check every invariant of the ledger."""

from typing import Any

from sandbox.cli.app import Shown
from sandbox.cli.client import Output
from sandbox.cli.derived import command_of
from sandbox.cli.failures import check_failed


def _report(report: dict[str, Any]) -> Output:
    lines = []
    for check in report["checks"]:
        lines.append(f"{'ok' if check['ok'] else 'WRONG':<6}{check['name']}: {check['detail']}")
        lines += [f"      {problem}" for problem in check["problems"]]
    violated = [check["name"] for check in report["checks"] if not check["ok"]]
    failure = None if report["ok"] else check_failed(f"These invariants are violated: {', '.join(violated)}.")
    return Output(report, "\n".join(lines), failure)


audit = command_of("audit", shown=Shown(_report, help="The exit code is 1 if an invariant is violated."))
