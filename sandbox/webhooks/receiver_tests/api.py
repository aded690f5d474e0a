"""`/sandbox/v1/receiver-tests`: parse, call the service, render."""

from collections.abc import Mapping
from typing import Any, Final

from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import PAGE, get, post
from sandbox.http.paging import Page, window
from sandbox.http.request import Request
from sandbox.http.responses import Response
from sandbox.webhooks.receiver_tests.requests import ReceiverTestBody
from sandbox.webhooks.receiver_tests.service import ListedReceiverTest, ReceiverTest, ReceiverTestService

_XML: Final = "application/xml"
_LINKS: Final = {"get": ("get_receiver_test", "test_id"), "junit": ("get_receiver_test_junit", "test_id")}


class ReceiverTestApi:
    """The operations of receiver tests."""

    def __init__(self, tests: ReceiverTestService) -> None:
        self._tests = tests

    def _check(self, fields: Mapping[str, Any]) -> list[tuple[str, str]]:
        return self._tests.check(fields)

    @post(
        "/sandbox/v1/receiver-tests",
        "Test a webhook receiver",
        {202: ReceiverTest},
        ReceiverTestBody,
        links=_LINKS,
        check=_check,
        example={
            "url": "http://127.0.0.1:9/webhooks",
            "secret": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "probe_url": "http://127.0.0.1:9/probe",
        },
        description="Sends valid, damaged, repeated, late and many webhooks to a receiver of yours, and judges its answers. "
        "It runs in the background; each finished check is an event `receiver_test.progressed` in the stream. A receiver "
        "accepts with 2xx and refuses with 4xx. `probe_url` shows the effects: it answers `GET probe_url?payout_id=...` with "
        '`{"status": "SUCCESS", "applied": 1}`, the receiver\'s state of that payout (null if unknown) and how many events it '
        "acted on. Without it, checks of effects are skipped. The payouts are made up. `secret` is the secret that the "
        "receiver verifies with (for `v1a` the private key, `whsk_`); it is not stored.",
        psp="certify {url} --secret! {secret} --custom-signing {custom_signing:file=signing.json}",
    )
    async def create_receiver_test(self, request: Request, body: ReceiverTestBody) -> CommandResult:
        return await self._tests.create(request.context, body)

    @get(
        "/sandbox/v1/receiver-tests",
        "List receiver tests, newest first",
        {200: list[ListedReceiverTest]},
        query=PAGE,
        description="Without their findings. The newest 100 tests of a merchant are kept.",
        psp="receiver-tests list",
        columns="id created_at status url",
    )
    async def list_receiver_tests(self, request: Request) -> Page:
        return await self._tests.list(request.merchant_id, window(request.query))

    @get(
        "/sandbox/v1/receiver-tests/{test_id}",
        "Get a receiver test and its findings",
        {200: ReceiverTest},
        description="Each finding has the request that decided it with a curl command that repeats it, the answer, why it "
        "matters, and how to fix it in five languages. Its outcome is `passed`, `failed`, `skipped`, or `advice`, which does "
        "not fail the test. The newest 100 tests of a merchant are kept.",
        psp="receiver-tests get",
    )
    async def get_receiver_test(self, request: Request, test_id: Uuid) -> ReceiverTest:
        return await self._tests.get(request.merchant_id, test_id)

    @get(
        "/sandbox/v1/receiver-tests/{test_id}/junit",
        "Get a receiver test as JUnit XML",
        {200: str},
        errors=("INVALID_STATE",),
        media_type=_XML,
        description="One test case for each check. INVALID_STATE while the test runs.",
    )
    async def get_receiver_test_junit(self, request: Request, test_id: Uuid) -> Response:
        text = await self._tests.junit(request.merchant_id, test_id)
        return Response(200, text.encode(), _XML)
