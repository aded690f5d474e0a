"""Test your webhook receiver for classic mistakes."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Iterator

from psp_sandbox.client import inputs
from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call, given, new_key, query, segment
from psp_sandbox.client.literals import SigningScheme
from psp_sandbox.client.models.receiver_tests import ListedReceiverTest, ReceiverTest


class ReceiverTestsApi:
    """Test your webhook receiver for classic mistakes."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(self, *, limit: int | None = None) -> Iterator[ListedReceiverTest]:
        """List receiver tests, newest first.

        Without their findings. The newest 100 tests of a merchant are kept.

        Requests each page when it is needed; `limit` is the number of items per page.
        """
        return self._caller.pages(Call(ListedReceiverTest, "GET", "/sandbox/v1/receiver-tests", query=query({"limit": limit})))

    def create(
        self,
        *,
        url: str,
        secret: str,
        signing: SigningScheme | None = None,
        custom_signing: inputs.CustomSigning | None = None,
        probe_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> ReceiverTest:
        """Test a webhook receiver.

        Sends valid, damaged, repeated, late and many webhooks to a receiver of yours, and judges its answers. It runs
        in the background; each finished check is an event `receiver_test.progressed` in the stream. A receiver accepts
        with 2xx and refuses with 4xx. `probe_url` shows the effects: it answers `GET probe_url?payout_id=...` with
        `{"status": "SUCCESS", "applied": 1}`, the receiver's state of that payout (null if unknown) and how many events
        it acted on. Without it, checks of effects are skipped. The payouts are made up. `secret` is the secret that the
        receiver verifies with (for `v1a` the private key, `whsk_`); it is not stored.

        url: http:// or https://, with no user name or password; an IPv4 address is four decimal numbers; private
            addresses may be rejected.
        probe_url: http:// or https://, with no user name or password; an IPv4 address is four decimal numbers; private
            addresses may be rejected.
        """
        return self._caller.send(
            Call(
                ReceiverTest,
                "POST",
                "/sandbox/v1/receiver-tests",
                body=given(
                    {"url": url, "secret": secret, "signing": signing, "custom_signing": custom_signing, "probe_url": probe_url}
                ),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def get(self, test_id: str) -> ReceiverTest:
        """Get a receiver test and its findings.

        Each finding has the request that decided it with a curl command that repeats it, the answer, why it matters,
        and how to fix it in five languages. Its outcome is `passed`, `failed`, `skipped`, or `advice`, which does not
        fail the test. The newest 100 tests of a merchant are kept.

        Raises NotFound.
        """
        return self._caller.send(Call(ReceiverTest, "GET", f"/sandbox/v1/receiver-tests/{segment(test_id)}"))

    def junit(self, test_id: str) -> str:
        """Get a receiver test as JUnit XML.

        One test case for each check. INVALID_STATE while the test runs.

        Raises NotFound, InvalidState.
        """
        return self._caller.send(Call(str, "GET", f"/sandbox/v1/receiver-tests/{segment(test_id)}/junit"))
