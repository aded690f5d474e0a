"""`psp certify`: test a webhook receiver for classic mistakes."""

import textwrap
import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from sandbox.cli.app import App
from sandbox.cli.client import Client, Output, with_client
from sandbox.cli.endpoints import CustomSigningOption, custom_settings
from sandbox.cli.failures import check_failed, not_met, usage_error
from sandbox.webhooks.receiver_tests.events import ReceiverSigning

app = App("Tests of webhook receivers, which `psp certify` and the console start.")
Language = Literal["python", "node", "php", "go", "java"]
_PATH: Final = "/sandbox/v1/receiver-tests"
_ORDER: Final = ("failed", "advice", "skipped", "passed")
_MARKS: Final = {"failed": "FAILED", "advice": "ADVICE", "skipped": "skipped", "passed": "passed"}
_WIDTH: Final = 110
_FIRST_PAUSE: Final = 0.05
_MAX_PAUSE: Final = 0.5


@app.shows("get")
def _findings(test: dict[str, Any]) -> str:
    return report(test, None)


@with_client
def certify(
    client: Client,
    target: Annotated[str, typer.Argument(metavar="URL", help="The URL of the receiver to test.")],
    secret: Annotated[
        str, typer.Option("--secret", envvar="PSP_WEBHOOK_SECRET", help="The secret that the receiver verifies with.")
    ],
    signing: Annotated[ReceiverSigning, typer.Option("--signing", help="How to sign the webhooks.")] = "v1",
    custom_signing: CustomSigningOption = None,
    probe_url: Annotated[
        str | None,
        typer.Option(
            "--probe-url",
            help="A URL that shows the receiver's state: GET ?payout_id=ID returns {status, applied}. "
            "Without it, only statuses are judged.",
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write the report to this file as JUnit XML.")] = None,
    page: Annotated[
        Path | None, typer.Option("--report-file", help="Also write the report to this file as an HTML page.")
    ] = None,
    language: Annotated[Language | None, typer.Option("--language", help="Show the cures' code in this language.")] = None,
    app_command: Annotated[
        str | None,
        typer.Option(
            "--app",
            help="The command that starts the receiver here, in the foreground. It is started, killed in the middle of a "
            "burst, and restarted, to see what it loses or repeats. Needs --probe-url.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the test to finish.")] = 330,
) -> Output:
    """Test a webhook receiver: signatures, replays, duplicates, order, events of all types, large bodies, bursts, a restart.

    For each mistake the report shows why it matters, a curl command that repeats it, and how to fix it. The exit code is 1 if a
    check failed, and 4 if the test did not complete. Advice does not fail the test.
    """
    body: dict[str, Any] = {"url": target, "secret": secret, "signing": signing}
    if custom_signing is not None:
        body["custom_signing"] = custom_settings(custom_signing)
    if probe_url is not None:
        body["probe_url"] = probe_url
    if app_command is None:
        test = _watch(client, client.post(_PATH, body), timeout)
    else:
        from sandbox.cli.certify_app import certified_with_app  # loads the sender of webhooks

        test = certified_with_app(app_command, body, lambda: _watch(client, client.post(_PATH, body), timeout))
    if junit is not None:
        is_stored = app_command is None  # the API does not have the check that needs --app
        content = client.send("GET", f"{_PATH}/{test['id']}/junit").content if is_stored else junit_of(test).encode()
        _write(junit, content)
    if page is not None:
        from psp_sandbox.testing.evidence.render import certification_page

        _write(page, certification_page(test).encode())
    failed = [check["name"] for check in test["checks"] if check["outcome"] == "failed"]
    failure = None
    if failed:
        failure = check_failed(f"These checks failed: {', '.join(failed)}.")
    elif test["status"] != "PASSED":
        failure = not_met(f"The test did not complete: {test['error']}")
    return Output(test, report(test, language), failure)


def junit_of(test: dict[str, Any]) -> str:
    """Return a finished test as JUnit XML, as the API does."""
    from sandbox.webhooks.receiver_tests.junit import junit
    from sandbox.webhooks.receiver_tests.results import Finding

    return junit(test["url"], test["created_at"], msgspec.convert(test["checks"], list[Finding]), test["error"])


def report(test: dict[str, Any], language: str | None) -> str:
    """Return a finished test as text: what failed comes first, with its details."""
    checks = sorted(test["checks"], key=lambda check: _ORDER.index(check["outcome"]))
    blocks = [_block(check, language) for check in checks if check["outcome"] in ("failed", "advice")]
    width = max((len(check["name"]) for check in checks), default=0)
    lines = []
    for check in checks:
        reason = f"  {check['why']}" if check["outcome"] == "skipped" else ""
        first, *rest = textwrap.wrap(reason.strip(), _WIDTH - width - 11) or [""]
        lines.append(f"{_MARKS[check['outcome']]:<9}{check['name']:<{width}}  {first}".rstrip())
        lines += [" " * (width + 11) + line for line in rest]
    ending = [test["error"]] if test["error"] is not None else []
    unseen = [line for one in test["not_visible"] for line in _unseen(one)]
    lines += ["", "Not visible from outside:", *unseen] if test["status"] != "RUNNING" else []
    return "\n\n".join([*blocks, "\n".join(lines), "\n".join([*ending, f"{test['status']}: {test['summary']['text']}"])])


def _block(check: dict[str, Any], language: str | None) -> str:
    lines = [f"{_MARKS[check['outcome']]}  {check['name']}", *_paragraph(check["why"])]
    received, sent = check["received"], check["sent"]
    if sent is not None:
        lines += ["  Sent:", f"    {sent['summary'].rstrip(',')}"]
    if received is not None:
        answer = received["error"] if received["status"] is None else received["status"]
        text = received["body"].strip().replace("\n", " ")
        lines += ["  Received:", f"    {answer} after {received['duration_ms']:.0f} ms" + (f": {text[:200]}" if text else "")]
    if sent is not None:
        lines += ["  Repeat it:", textwrap.indent(sent["curl"], "    ")]
    lines += ["  Fix:", *_paragraph(check["cure"]["summary"], "    ")]
    if language is not None:
        lines.append(textwrap.indent(check["cure"][language], "    | ", lambda line: True))
    return "\n".join(lines)


def _unseen(one: dict[str, Any]) -> list[str]:
    option = f" Use {one['seen_with']}." if one["seen_with"] is not None else ""
    first, *rest = textwrap.wrap(one["what"] + option, _WIDTH - 2, break_on_hyphens=False)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _paragraph(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _watch(client: Client, test: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Wait until a test is finished, and return it. Shows a progress bar on a terminal.

    Raises Failure if it takes longer than `timeout` seconds.
    """
    from rich.console import Console
    from rich.progress import Progress

    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    with Progress(console=Console(stderr=True), disable=not client.is_watched, transient=True) as progress:
        bar = progress.add_task("Testing", total=test["summary"]["total"])
        while test["status"] == "RUNNING":
            if time.monotonic() > deadline:
                raise not_met(f"Receiver test {test['id']} is still running after {timeout:g} s.")
            time.sleep(pause)
            pause = min(pause * 1.5, _MAX_PAUSE)
            test = client.get(f"{_PATH}/{test['id']}")
            last = f": {test['checks'][-1]['name']}" if test["checks"] else ""
            progress.update(bar, completed=len(test["checks"]), description=f"Testing{last}")
    return test


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise usage_error(f"Cannot write {path}: {error.strerror}.") from None
