"""`psp audit`: every invariant of the ledger, recomputed."""

import typer

from sandbox.cli.client import DEFAULT_URL, ApiKey, AsJson, ReadyFile, Url, connect, show


def audit(url: Url = DEFAULT_URL, api_key: ApiKey = None, ready_file: ReadyFile = None, as_json: AsJson = False) -> None:
    """Recompute every invariant of the merchant's ledger. Exit code 0: all hold; 1: one does not; 2: wrong usage."""
    report = connect(url, api_key, ready_file).get("/sandbox/v1/audit")
    lines = []
    for check in report["checks"]:
        lines.append(f"{'ok' if check['ok'] else 'WRONG':<6}{check['name']}: {check['detail']}")
        lines += [f"      {problem}" for problem in check["problems"]]
    show(report, as_json=as_json, text="\n".join(lines))
    if not report["ok"]:
        raise typer.Exit(1)
