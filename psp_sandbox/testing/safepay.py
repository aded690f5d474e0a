"""What an adapter of Safepay Raast needs to use the merchant of a test: `psp.safepay`."""

from psp_sandbox.client import Client
from psp_sandbox.testing.connections import send
from psp_sandbox.testing.options import UsageError

_KEY_HEADER = "X-SFPY-AGGREGATOR-SECRET-KEY"


class Safepay:
    """The settings of an adapter. Payouts that it makes are the merchant's, so `psp.payout` and `psp.advance` work on them."""

    def __init__(self, client: Client, merchant_id: str, api_key: str) -> None:
        """`client` is the test's own, whose key can be another one than the adapter's."""
        self._client = client
        self._secret: str | None = None
        self.url = f"{client._caller.address.url}/raastwire"
        """The base URL, which ends before `/v1`."""
        self.key = api_key
        self.aggregator_id = f"agg_{merchant_id}"

    def subscribe(self, url: str, *event_types: str) -> str:
        """Have events sent to a URL, by default all of payments, and return the secret that signs them.

        Raises ProblemError, or an HTTP error, if the sandbox refuses.
        """
        body = {"url": url, "event_types": event_types or ("payment.*",)}
        path = f"/raastwire/v1/aggregators/{self.aggregator_id}/webhooks"
        key = self._client._caller.address.keys["merchant"] or ""
        made = send(self._client, "POST", path, body, headers={_KEY_HEADER: key}).json()
        self._secret = str(made["data"]["secret"])
        return self._secret

    @property
    def webhook_secret(self) -> str:
        """The secret of the endpoint that `subscribe` made last. Raises UsageError before that."""
        if self._secret is None:
            raise UsageError("psp.safepay.subscribe(url) makes an endpoint first, and returns its secret too")
        return self._secret
