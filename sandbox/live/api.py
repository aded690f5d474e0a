"""`/sandbox/v1/stream`: parse, call the service, stream."""

import re
from functools import partial
from typing import Final

from litestar import Router, get
from litestar.response.base import ASGIResponse

from sandbox.domain.errors import invalid
from sandbox.http.guard import HttpRequest, RequestGuard, api_key_of
from sandbox.http.operation import Operation, parameter
from sandbox.http.paging import query, seconds
from sandbox.live.streams import MEDIA_TYPE, Streams

LARGEST_LIMIT: Final = 1_000_000
_TYPES: Final = re.compile(r"[a-z_.]{0,40}\*?(,[a-z_.]{0,40}\*?){0,19}\Z")
LONGEST: Final = 86_400

_STREAM: Final = Operation(
    "Stream everything as it happens, as server-sent events", {200: str}, raw_media_type=MEDIA_TYPE,
    query=(
        parameter("limit", "Stop after this many events.", type="integer", minimum=1, maximum=LARGEST_LIMIT),
        parameter("types", "Only these types, comma-separated; payout.* means all that start with payout. Default: all.",
                  type="string", pattern=r"^[a-z_.]{0,40}\*?(,[a-z_.]{0,40}\*?){0,19}$"),
        parameter("timeout", "Stop after this many seconds.", type="number", minimum=0, maximum=LONGEST),
    ),
    description="Payout changes have their event's type (`event: payout.succeeded`), webhook attempts are "
    "`webhook.attempted`, API calls are `request`; each `data:` is one JSON object. A comment says when the stream is "
    "listening, and another every 15 s keeps it alive. Nothing is replayed: see the log of events for what happened "
    "earlier. A client that reads too slowly is disconnected. A merchant can have 32 streams at a time.",
)  # fmt: skip


def stream_router(gate: RequestGuard, streams: Streams) -> Router:
    """The route of the stream."""

    @get("/stream", operation_id="stream", opt={"operation": _STREAM})
    async def stream(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request, also=MEDIA_TYPE)
        params = query(request, ("limit", "timeout", "types"))
        limit = int(params["limit"]) if "limit" in params else None
        timeout = seconds(params, "timeout", 0, LONGEST) if "timeout" in params else None
        types = params.get("types", "*")
        if not _TYPES.match(types):
            raise invalid("types", "must be names of events such as payout.succeeded, payout.* or *, comma-separated")
        check_key = partial(gate.keys.caller, api_key_of(request))
        return await streams.open(caller.merchant_id, check_key, limit, timeout, types.split(","))

    return Router("/sandbox/v1", route_handlers=[stream])
