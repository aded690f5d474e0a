"""`psp explore`: run a test suite again, once for each way in which the world can misbehave."""

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sandbox.cli.client import Client, Output, with_operator
from sandbox.cli.failures import check_failed, refused, usage_error
from sandbox.cli.options import pairs

if TYPE_CHECKING:
    from psp_sandbox.testing.explore.results import Exploration

_TEST: Final = "{test}"


@with_operator
def explore(
    client: Client,
    command: Annotated[list[str], typer.Argument(help="The command that runs the suite, after --.", metavar="COMMAND")],
    app: Annotated[
        str | None, typer.Option("--app", help="The command that starts the application; it is killed and started again.")
    ] = None,
    webhook_url: Annotated[
        str | None,
        typer.Option("--webhook-url", help="Where the application receives webhooks. Their secret is PSP_WEBHOOK_SECRET."),
    ] = None,
    books: Annotated[
        str | None,
        typer.Option("--books", metavar="CMD", help="A command that prints the application's books, as JSON lines or CSV."),
    ] = None,
    books_url: Annotated[
        str | None, typer.Option("--books-url", help="A URL that responds with the application's books.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="NAME=STATUS",
            help="What a status of the books means, such as paid=SUCCESS or refused=NONE. Can be repeated.",
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option("--select", metavar="CMD", help="A command that runs one test, with {test} in place of its name."),
    ] = None,
    test: Annotated[list[str] | None, typer.Option("--test", help="A test to run with --select. Can be repeated.")] = None,
    own_merchants: Annotated[
        bool, typer.Option("--own-merchants", help="The tests make a merchant each, as with withPsp in Node.")
    ] = False,
    depth: Annotated[int, typer.Option("--depth", min=1, max=2, help="2: try pairs of points too.")] = 1,
    budget: Annotated[str | None, typer.Option("--budget", metavar="TIME", help="Stop after this time, such as 10m.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed of the merchants, which also draws the pairs.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the exploration that was stopped.")] = False,
    point: Annotated[
        str | None, typer.Option("--point", help='Try one point only, such as "POST /payouts#2:answer_lost".')
    ] = None,
    report_file: Annotated[
        Path | None,
        typer.Option(
            "--report-file", help="Also write the report: a page for FILE.html, else Markdown, .json, or .xml as JUnit."
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the points, and try none.")] = False,
) -> Output:
    """Explore a test suite in any language: run it once per way in which the world can misbehave, and compare both books.

    Each run has a fresh merchant with a frozen clock, and gets PSP_URL, PSP_API_KEY, PSP_WEBHOOK_SECRET, PSP_IPN_SECRET and
    PSP_RUN_DIR, an empty folder, in its environment; with --own-merchants, PSP_URL and PSP_EXPLORE_URL. The results are in
    .psp-explore. The exit code is 1 if something is wrong.
    """
    from psp_sandbox.client import Client as PspClient
    from psp_sandbox.client import PspError
    from psp_sandbox.testing.explore import report
    from psp_sandbox.testing.explore.command import CommandError, CommandExplorer, Limits, Suite
    from psp_sandbox.testing.explore.own_merchants import OwnMerchantsExplorer
    from psp_sandbox.testing.explore.run_folder import NAME

    if own_merchants and (app, webhook_url, books, books_url, select) != (None,) * 5:
        raise usage_error("With --own-merchants, each test has its own application, webhooks and books.")
    suite = Suite(
        tests=_tests(command, select, test),
        app=None if app is None else shlex.split(app),
        webhook_url=webhook_url,
        books_command=books,
        books_url=books_url,
        names=_names(status),
    )
    limits = Limits(depth=depth, seed=seed, ends=_end_of(budget), only=point, resume=resume)
    options: dict[str, Any] = {
        "--app": app, "--webhook-url": webhook_url, "--books": books, "--books-url": books_url, "--select": select,
        "--seed": seed or None,
    }  # fmt: skip
    repeated = [*(("--status", one) for one in status or []), *(("--test", one) for one in test or [])]
    given = [(name, str(value)) for name, value in options.items() if value is not None]
    again = [
        "psp",
        "explore",
        *(["--own-merchants"] if own_merchants else []),
        *(word for pair in [*given, *repeated] for word in pair),
        "--",
        *command,
    ]
    with PspClient(client.url, admin_key=client.key) as psp:
        kind = OwnMerchantsExplorer if own_merchants else CommandExplorer
        explorer = kind(psp, suite, limits, Path(NAME), lambda line: typer.echo(line, err=True), again)
        try:
            plans = explorer.plan()
            if list_:
                names = [f"{name}  {one.name}" for name, (points, _) in plans.items() for one in points]
                return Output(names, "\n".join(names))
            found = explorer.explore(plans)
        except CommandError as error:
            raise usage_error(str(error)) from None
        except PspError as error:
            raise refused(str(error)) from None
    if report_file is not None:
        _write_report(found, report_file)
    failure = None
    if point is not None and not found.points:
        failure = usage_error(f"There is no point {point!r}. --list shows all points.")
    elif not found.ok:
        failure = check_failed("The application's books and the provider's do not agree at every point.")
    return Output(json.loads(found.to_json()), "\n".join(report.as_text(found)), failure)


def _write_report(found: "Exploration", path: Path) -> None:
    from psp_sandbox.testing.evidence.render import write_exploration

    try:
        write_exploration(found, path)
    except OSError as error:
        raise usage_error(f"Cannot write {path}: {error.strerror}.") from None


def _tests(command: list[str], select: str | None, tests: list[str] | None) -> dict[str, list[str]]:
    if (select is None) != (not tests):
        raise usage_error("--select needs --test, and --test needs --select.")
    if select is None:
        return {shlex.join(command): command}
    if _TEST not in select:
        raise usage_error(f"--select must contain {_TEST}, which stands for the name of a test.")
    return {name: shlex.split(select.replace(_TEST, shlex.quote(name))) for name in tests or []}


def _names(given: list[str] | None) -> dict[str, str | None]:
    return {name: None if status.upper() == "NONE" else status.upper() for name, status in pairs("--status", given).items()}


def _end_of(budget: str | None) -> float:
    from psp_sandbox.testing.options import UsageError
    from psp_sandbox.testing.results import seconds_of

    try:
        return float("inf") if budget is None else time.monotonic() + seconds_of(budget)
    except UsageError as error:
        raise usage_error(f"--budget: {error}") from None
