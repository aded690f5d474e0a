"""What an adapter of Safepay Raast needs to use the merchant of a test: `psp.safepay`."""

import json
import uuid

from psp_sandbox.client import Client
from psp_sandbox.testing.connections import send
from psp_sandbox.testing.options import UsageError

_KEY_HEADER = "X-SFPY-AGGREGATOR-SECRET-KEY"


def forged(body: str) -> bytes:
    """Return a webhook that claims the opposite of one of Safepay's: that the payment failed, or else that it is settled."""
    event = json.loads(body)
    payment = event["subject"]["payment"]
    name = "failed" if payment["status"] == "P_SETTLED" else "settled"
    payment["status"] = f"P_{name.upper()}"
    # Later than any real change, however the receiver orders them.
    logs = [{**payment["txn_logs"][-1], "token": f"txnlog_{uuid.uuid4()}", "status": payment["status"]} for _ in range(9)]
    payment["txn_logs"] += logs
    event |= {"identifier": logs[-1]["token"], "code": f"PAYMENT_{name.upper()}", "webhook_event_type": f"payment.{name}"}
    return json.dumps(event).encode()


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
