"""`psp audit`: every invariant of the ledger, recomputed."""

from sandbox.cli.client import Client, Shown, with_client


@with_client
def audit(client: Client) -> Shown:
    """Recompute every invariant of the merchant's ledger. Exit code 0: all hold; 1: one does not; 2: wrong usage."""
    report = client.get("/sandbox/v1/audit")
    lines = []
    for check in report["checks"]:
        lines.append(f"{'ok' if check['ok'] else 'WRONG':<6}{check['name']}: {check['detail']}")
        lines += [f"      {problem}" for problem in check["problems"]]
    return Shown(report, "\n".join(lines), 0 if report["ok"] else 1)
