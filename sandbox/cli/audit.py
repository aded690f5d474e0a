"""`psp audit`: every invariant of the ledger, recomputed."""

from sandbox.cli.client import Client, Shown, with_client
from sandbox.cli.failures import check_failed


@with_client
def audit(client: Client) -> Shown:
    """Recompute every invariant of the merchant's ledger. The exit code is 1 if one does not hold."""
    report = client.get("/sandbox/v1/audit")
    lines = []
    for check in report["checks"]:
        lines.append(f"{'ok' if check['ok'] else 'WRONG':<6}{check['name']}: {check['detail']}")
        lines += [f"      {problem}" for problem in check["problems"]]
    wrong = [check["name"] for check in report["checks"] if not check["ok"]]
    failure = None if report["ok"] else check_failed(f"These invariants do not hold: {', '.join(wrong)}.")
    return Shown(report, "\n".join(lines), failure)
