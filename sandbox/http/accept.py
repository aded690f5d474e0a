"""What a client accepts: RFC 9110, section 12.5.1. Media types are case-insensitive, and a weight of 0 means no."""

import re
from functools import lru_cache
from typing import Final

_WEIGHT: Final = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")


def accepts(header: str | None, *media_types: str) -> bool:
    """Whether an Accept header allows one of the media types (in lower case). No header, or an empty one, allows all."""
    return any(quality(header, media_type) > 0 for media_type in media_types)


def names(header: str | None, media_type: str) -> bool:
    """Whether an Accept header names a media type (in lower case) itself, not by a wildcard, and does not refuse it."""
    return header is not None and _weights(header).get(media_type, 0.0) > 0


def quality(header: str | None, media_type: str) -> float:
    """The weight, 0 to 1, that an Accept header gives to a media type (in lower case).

    The most specific range decides. Parameters other than the weight are ignored: `application/json; charset=utf-8` asks
    for JSON. A weight that is malformed counts as 1.
    """
    weights = {} if header is None else _weights(header)
    if not weights:
        return 1.0
    ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    return next((weights[media_range] for media_range in ranges if media_range in weights), 0.0)


@lru_cache(maxsize=256)  # clients send the same few; the server bounds how long a header is
def _weights(header: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for found in header.lower().split(","):
        media_range, *parameters = (part.strip() for part in found.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q" and _WEIGHT.match(value.strip()):
                weight = float(value)
        if media_range:
            # Named twice, it is accepted as far as it is anywhere.
            weights[media_range] = max(weight, weights.get(media_range, 0.0))
    return weights
