"""`/sandbox/v1/stream`: parse, call the service, stream."""

import re
from functools import partial
from typing import Final

from sandbox.domain.errors import invalid
from sandbox.http.middleware import api_key_of
from sandbox.http.operation import get, parameter
from sandbox.http.request import ApiKeyLookup, Request
from sandbox.worlds.stream.streams import MEDIA_TYPE, EventStream, Streams

MAX_LIMIT: Final = 1_000_000
MAX_SECONDS: Final = 86_400
_TYPES: Final = r"^[a-z_.]{0,40}\*?(,[a-z_.]{0,40}\*?){0,19}$"


class StreamApi:
    """The operation that streams changes as they happen."""

    def __init__(self, streams: Streams, keys: ApiKeyLookup) -> None:
        self._streams = streams
        self._keys = keys

    @get(
        "/sandbox/v1/stream",
        "Stream changes as they happen, as server-sent events",
        {200: str},
        media_type=MEDIA_TYPE,
        query=(
            parameter("limit", "Stop after this many events.", type="integer", minimum=1, maximum=MAX_LIMIT),
            parameter(
                "types",
                "Only these types, comma-separated; payout.* means every type that starts with payout. Default: all.",
                type="string",
                pattern=_TYPES,
            ),
            parameter("timeout", "Stop after this many seconds.", type="number", minimum=0, maximum=MAX_SECONDS),
        ),
        description="Payout changes have their event's type (`event: payout.succeeded`), webhook attempts are "
        "`webhook.attempted`, API calls are `request`, the checks of receiver tests are `receiver_test.progressed`, the "
        "credited chunks of a file are `bulk_credit.progressed`, calls to a vendor are `aggregator.fetched`; each `data:` is "
        "one JSON object. A comment says when the stream is listening, and another every 15 s keeps it alive. "
        "Earlier events are not replayed; they are in the log of events. "
        "A client that reads too slowly is disconnected. A merchant can have 32 streams at a time.",
        psp="events watch",
    )
    async def stream(self, request: Request) -> EventStream:
        query = request.query
        limit = int(query["limit"]) if "limit" in query else None
        timeout = float(query["timeout"]) if "timeout" in query else None
        types = query.get("types", "*")
        if not re.fullmatch(_TYPES, types):
            raise invalid("types", "must be names of events such as payout.succeeded, payout.* or *, comma-separated")
        check_key = partial(self._keys.caller, api_key_of(request))
        return await self._streams.open(request.merchant_id, check_key, limit, timeout, types.split(","))
