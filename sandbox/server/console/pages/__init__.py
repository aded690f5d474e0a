"""The console's pages. Each module has those of one section."""

from typing import Final

from sandbox.server.console.pages import (
    aggregator,
    approvals,
    bulk_credit,
    catalogue,
    certify,
    clock,
    command,
    deliveries,
    endpoints,
    events,
    faults,
    ledger,
    merchants,
    new_payout,
    overview,
    payout,
    payout_as,
    payout_batch,
    payouts,
    requests,
    sales,
    scenarios,
    search,
    settings,
    sign_in,
    snapshots,
    steps,
    tail,
    users,
)
from sandbox.server.console.routing import Fragment, Page

_MODULES: Final = (
    aggregator.pages,
    approvals.pages,
    bulk_credit.pages,
    catalogue.pages,
    clock.pages,
    command.pages,
    faults.pages,
    # Before endpoints, whose ids are in the place of the words certify, deliveries and events.
    certify.pages,
    deliveries.pages,
    events.pages,
    endpoints.pages,
    ledger.pages,
    merchants.pages,
    overview.pages,
    new_payout.pages,
    payout.pages,
    payout_as.pages,
    payout_batch.pages,
    payouts.pages,
    requests.pages,
    sales.pages,
    scenarios.pages,
    search.pages,
    settings.pages,
    sign_in.pages,
    snapshots.pages,
    steps.pages,
    tail.pages,
    users.pages,
)

PAGES: Final[list[Page]] = [page for module in _MODULES for page in module.pages]
FRAGMENTS: Final[list[Fragment]] = [fragment for module in _MODULES for fragment in module.fragments]
