"""`psp audit`: check every invariant of the ledger."""

from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.failures import check_failed


@with_client
def audit(client: Client) -> Output:
    """Check every invariant of the merchant's ledger. The exit code is 1 if one is violated."""
    report = client.get("/sandbox/v1/audit")
    lines = []
    for check in report["checks"]:
        lines.append(f"{'ok' if check['ok'] else 'WRONG':<6}{check['name']}: {check['detail']}")
        lines += [f"      {problem}" for problem in check["problems"]]
    violated = [check["name"] for check in report["checks"] if not check["ok"]]
    failure = None if report["ok"] else check_failed(f"These invariants are violated: {', '.join(violated)}.")
    return Output(report, "\n".join(lines), failure)
