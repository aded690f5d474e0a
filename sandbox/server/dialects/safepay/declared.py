"""How Safepay's operations are declared, and the parts of requests that they share."""

from collections.abc import Mapping
from typing import Any, Final

from sandbox.domain.errors import Problem
from sandbox.http.operation import Operation, Parameter, parameter
from sandbox.http.request import Request
from sandbox.payouts.history import MAX_OFFSET
from sandbox.server.dialects.safepay.objects import Envelope, aggregator_of

NAME: Final = "safepay"
PREFIX: Final = "/raastwire/"
AGGREGATOR: Final = PREFIX + "v1/aggregators/{aggregator_id}"
DEFAULT_LIMIT: Final = 10
PAGE: Final = (
    parameter("limit", "Maximum number of items.", type="integer", minimum=0, maximum=100, default=DEFAULT_LIMIT),
    parameter("offset", "How many items to skip.", type="integer", minimum=0, maximum=MAX_OFFSET, default=0),
)


def operation(
    method: str, path: str, summary: str, data: Any, body: Any = None, query: tuple[Parameter, ...] = (), **fields: Any
) -> Operation:
    """Declare an operation below the aggregator's path whose response has `data`. Every success is a 200."""
    responses = {200: Envelope[data]}
    return Operation(method, AGGREGATOR + path, summary, responses, body, query=query, dialect=NAME, **fields)


def require_own_aggregator(request: Request) -> None:
    """Raise NOT_FOUND if the path names another aggregator than the key's."""
    if request.path_parameters["aggregator_id"] != aggregator_of(request.merchant_id):
        raise Problem("NOT_FOUND")


def part_of(query: Mapping[str, str]) -> tuple[int, int]:
    """Return the limit and the offset of a list."""
    return int(query.get("limit", DEFAULT_LIMIT)), int(query.get("offset", 0))
