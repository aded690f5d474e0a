"""A typed client for PSP Sandbox, synchronous and for asyncio.

from psp_sandbox import Client

with Client() as client:  # PSP_URL and PSP_API_KEY, or the demo merchant of `psp up`
    payout = client.payouts.create(merchant_reference="INV-1001", amount="1500.00", dest_type="BANK", bank_code="HBL",
                                   account_number="12345678900001")
    print(client.payouts.wait_for(payout.id, "SUCCESS").processed_at)
"""

from psp_sandbox.client._calls import OMITTED, Omitted
from psp_sandbox.client._clients import AsyncClient, Client
from psp_sandbox.client.errors import NotReached, ProblemError, PspError, UnexpectedResponse, Unreachable, WaitTimeout

__all__ = [
    "OMITTED",
    "AsyncClient",
    "Client",
    "NotReached",
    "Omitted",
    "ProblemError",
    "PspError",
    "UnexpectedResponse",
    "Unreachable",
    "WaitTimeout",
]
