"""Test webhook receivers: start a test, follow it, and read what it found."""

from collections.abc import Sequence
from typing import Final, get_args

from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column, Row
from sandbox.server.console.pages.deliveries import header_lines
from sandbox.server.console.routing import Pages
from sandbox.server.console.security import add
from sandbox.server.console.view import View
from sandbox.webhooks.receiver_tests.events import ReceiverSigning

pages = Pages()
_SIGNINGS: Final = tuple(name for name in get_args(ReceiverSigning) if name != "custom")
"""A custom signature has settings, which the form does not ask for."""
_FINDINGS: Final = ("failed", "advice")
_LANGUAGES: Final = (("python", "Python"), ("node", "Node.js"), ("php", "PHP"), ("go", "Go"), ("java", "Java"))
TO_TEST: Final = "/webhooks/certify/{id}"
COLUMNS: Final = (
    Column("created_at", "Started", "time", link=TO_TEST),
    Column("url", "URL", "url", link=TO_TEST),
    Column("status", "Result", "status", link=TO_TEST),
    Column("summary.passed", "Passed", "number"),
    Column("summary.failed", "Failed", "number"),
    Column("summary.advice", "Advice", "number"),
    Column("summary.skipped", "Skipped", "number"),
    Column("signing", "Signing", "code"),
    Column("id", "Id", "id", link=TO_TEST),
)


@pages.page("/webhooks/certify")
async def certify(view: View) -> Response:
    """Ask which receiver to test, and list the tests."""
    table = await view.table(
        "tests", "Tests, newest first", COLUMNS, "list_receiver_tests", empty="No receiver was tested yet."
    )
    return await view.render("certify.html", tables=[table], signings=_SIGNINGS)


@pages.page("/webhooks/certify/{test_id}")
async def test(view: View) -> Response:
    """Show a test's progress and findings."""
    found = await view.call("get_receiver_test", path={"test_id": view.path_parameters["test_id"]})
    return await view.render(
        "receiver_test.html", test=found, causes=causes(found["checks"]), skipped=skipped(found["checks"]),
        languages=_LANGUAGES, header_lines=header_lines,
    )  # fmt: skip


def causes(checks: Sequence[Row]) -> list[list[Row]]:
    """Return the checks that found something, grouped by the code that mends them, what to mend first first.

    The checks come in their order of weight. What failed goes before what is only advice.
    """
    by_code: dict[str, list[Row]] = {}
    for check in checks:
        if check["outcome"] in _FINDINGS:
            by_code.setdefault(check["cure"]["python"], []).append(check)
    return sorted(by_code.values(), key=lambda group: all(check["outcome"] == "advice" for check in group))


def skipped(checks: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the checks that were skipped, by the reason."""
    by_reason: dict[str, list[Row]] = {}
    for check in checks:
        if check["outcome"] == "skipped":
            by_reason.setdefault(check["why"], []).append(check)
    return by_reason


@pages.page("/webhooks/certify/{test_id}/junit")
async def junit(view: View) -> Response:
    """Return a finished test as a file in JUnit's format."""
    test_id = view.path_parameters["test_id"]
    text = await view.call("get_receiver_test_junit", path={"test_id": test_id})
    disposition = f'attachment; filename="receiver-test-{test_id}.xml"'
    return Response(200, text.encode(), "application/xml", add([("content-disposition", disposition)]))
