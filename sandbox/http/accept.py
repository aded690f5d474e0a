"""Parse Accept headers (RFC 9110, section 12.5.1). Media types are case-insensitive; weight 0 means "not acceptable"."""

import re
from functools import lru_cache
from typing import Final

_WEIGHT: Final = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")


def accepts(header: str | None, *media_types: str) -> bool:
    """Return whether an Accept header allows one of the media types (in lower case). No or an empty header allows all."""
    return any(quality(header, media_type) > 0 for media_type in media_types)


def names_explicitly(header: str | None, media_type: str) -> bool:
    """Return whether an Accept header allows a media type (in lower case) by its full name, not by a wildcard."""
    return header is not None and _weights(header).get(media_type, 0.0) > 0


def prefers_html(header: str | None) -> bool:
    """Return whether an Accept header is a browser's: it names HTML, and prefers it to JSON."""
    header = (header or "").lower()
    return "text/html" in header and quality(header, "text/html") >= max(quality(header, "application/json"), 0.001)


def quality(header: str | None, media_type: str) -> float:
    """Return the weight, 0 to 1, that an Accept header gives to a media type (in lower case).

    The most specific range wins. Parameters other than the weight are ignored, so `application/json; charset=utf-8` matches
    JSON. A malformed weight counts as 1.
    """
    weights = {} if header is None else _weights(header)
    if not weights:
        return 1.0
    ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    return next((weights[media_range] for media_range in ranges if media_range in weights), 0.0)


@lru_cache(maxsize=256)  # clients repeat a few values; the server limits their length
def _weights(header: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for element in header.lower().split(","):
        media_range, *parameters = (part.strip() for part in element.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q" and _WEIGHT.match(value.strip()):
                weight = float(value)
        if media_range:
            # If a range is listed twice, the higher weight wins.
            weights[media_range] = max(weight, weights.get(media_range, 0.0))
    return weights
