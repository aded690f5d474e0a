"""Read how each of a merchant's webhook endpoints does: a bounded read, the sickest endpoint first."""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from sandbox.domain.clock import render
from sandbox.domain.redaction import Address
from sandbox.domain.shown import shown
from sandbox.http.operation import get
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.webhooks.endpoints.service import MAX_ENDPOINTS

MAX_DELIVERIES: Final = 20
"""At how many of an endpoint's newest deliveries attempts count, and up to how many deliveries without success are counted."""
MAX_ATTEMPTS: Final = 5
"""How many attempts of one delivery count, the newest."""
_TRIED: Final = ("PENDING", "SUCCEEDED", "FAILED")

_HEALTH: Final = read_statements(__name__)["health"]

EndpointState = Literal["FAILING", "PARTLY_FAILING", "DISABLED", "OK", "NOTHING_SENT"]
"""`FAILING`: no attempt has succeeded since the last failure. `PARTLY_FAILING`: the last attempt succeeded, but an event keeps
failing."""


class LastFailure(msgspec.Struct):
    """The newest failed attempt. `failure` is `HTTP` and the status, or the class of the error."""

    at: str
    failure: str
    delivery_id: str


class FailingEvent(msgspec.Struct):
    """The oldest event that an endpoint has been sent in vain, and is still being sent. `since` is its first attempt."""

    event_type: str
    since: str
    attempts: int
    delivery_id: str


class EndpointHealth(msgspec.Struct, kw_only=True):
    """How an endpoint does. All times are the merchant's."""

    endpoint_id: str
    url: Address
    state: EndpointState
    disabled_reason: str | None
    failing_since: str | None
    """When the first attempt failed since the last success; null if the last attempt succeeded."""
    succeeded: int
    """How many attempts succeeded, of those that count."""
    failed: int
    last_failure: LastFailure | None
    """Of the attempts that count."""
    oldest_failing: FailingEvent | None
    given_up: int
    """How many deliveries have failed for good, up to 20."""


class EndpointHealthList(msgspec.Struct):
    """A merchant's endpoints, the sickest first."""

    data: list[EndpointHealth]


class EndpointHealthService:
    """Reads the health of endpoints."""

    @get(
        "/api/v1/webhook-endpoints/health",
        "See how each webhook endpoint does",
        {200: EndpointHealthList},
        description=f"The sickest endpoint is first. The attempts that count are the newest {MAX_ATTEMPTS} at each of an "
        f"endpoint's newest {MAX_DELIVERIES} deliveries, and at its oldest one that still fails. So it costs the same however "
        "many there are.",
        psp="endpoints health",
        columns="state url succeeded failed failing_since",
    )
    async def list_endpoint_health(self, merchant_id: str) -> EndpointHealthList:
        """Return the merchant's endpoints with their health."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_HEALTH, merchant_id, MAX_ENDPOINTS, MAX_DELIVERIES, _TRIED, MAX_ATTEMPTS)
        return EndpointHealthList(sorted((_health(record) for record in records), key=_illness))


def _health(record: Mapping[str, Any]) -> EndpointHealth:
    failure, failing = record["failure"], record["failing_id"]
    return shown(
        EndpointHealth,
        record,
        state=_state(record),
        last_failure=failure and LastFailure(render(record["failed_at"]), failure, record["failed_delivery_id"]),
        oldest_failing=failing
        and FailingEvent(record["event_type"], render(record["since"]), record["attempts"], record["failing_id"]),
    )


def _state(record: Mapping[str, Any]) -> EndpointState:
    if record["status"] == "DISABLED":
        return "DISABLED"
    if record["failing_since"] is not None:
        return "FAILING"
    if record["failing_id"] is not None:
        return "PARTLY_FAILING"
    return "OK" if record["succeeded"] or record["failed"] else "NOTHING_SENT"


def _illness(found: EndpointHealth) -> tuple[int, str, str]:
    """Return what endpoints are sorted by: the state, and since when."""
    since = found.oldest_failing.since if found.oldest_failing else found.failing_since or ""
    return get_args(EndpointState).index(found.state), since, found.endpoint_id
