"""`GET /sandbox/v1/overview`: call the service, render."""

from sandbox.http.operation import get
from sandbox.http.request import Request
from sandbox.overview.service import Overview, OverviewService


class OverviewApi:
    """The operation that shows a merchant's statistics."""

    def __init__(self, overview: OverviewService) -> None:
        self._overview = overview

    @get(
        "/sandbox/v1/overview",
        "Get statistics of payouts, balance and webhooks",
        {200: Overview},
        takes_turns=True,
        description="Covers the newest 1000 payouts, the newest 1000 transfers of the balance and the newest 1000 webhook "
        "deliveries, so it costs the same however many there are. `covers` says how far back each part goes.",
        psp="overview",
    )
    async def get_overview(self, request: Request) -> Overview:
        return await self._overview.get(request.merchant_id)
