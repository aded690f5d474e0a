"""The headers in which GitHub and Safepay repeat what a webhook's body says. Pure."""

from typing import Annotated, Final

import msgspec

_HeaderText = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,100}\Z")]


class _Typed(msgspec.Struct):
    type: _HeaderText


_typed: Final = msgspec.json.Decoder(_Typed)


def github_names(event_id: str, body: bytes) -> dict[str, str]:
    """Return the headers by which receivers written for GitHub recognize a delivery and choose a handler."""
    try:
        return {"X-GitHub-Delivery": event_id, "X-GitHub-Event": _typed.decode(body).type}
    except msgspec.MsgspecError:  # a body of your own, in a signing example
        return {"X-GitHub-Delivery": event_id}


class _Routed(msgspec.Struct):
    identifier: _HeaderText
    webhook_event_type: _HeaderText
    aggregator_id: _HeaderText


_routed: Final = msgspec.json.Decoder(_Routed)


def safepay_names(body: bytes) -> dict[str, str]:
    """Return the headers that repeat what the body says; none if it is a body of another format."""
    try:
        found = _routed.decode(body)
    except msgspec.MsgspecError:
        return {}
    return {
        "X-SFPY-EVENT-ID": found.identifier,
        "X-SFPY-EVENT-TYPE": found.webhook_event_type,
        "X-SFPY-AGGREGATOR-ID": found.aggregator_id,
    }
