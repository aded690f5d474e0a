"""Request bodies for listeners and their validation. Pure."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Final

import msgspec

from sandbox.domain.enumerations import ErrorClass
from sandbox.domain.errors import invalid_fields
from sandbox.domain.fields import PRINTABLE, Name, Text500, Url
from sandbox.http.body_errors import FieldProblem
from sandbox.webhooks.endpoints.requests import CreateEndpointBody, DeliverySettings, dialect_errors, endpoint_errors
from sandbox.webhooks.outbound.address_guard import Network

MAX_CLAIMED: Final = 100
"""Maximum number of deliveries that a listener can claim with one request."""
MAX_WAIT_SECONDS: Final = 30
MAX_RESULTS: Final = 100

ANY_NETWORK: Final[tuple[Network, ...]] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""A listener may post to private addresses, because it is the merchant's own machine that connects."""

_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=3_600_000)]
_HeaderName = Annotated[str, msgspec.Meta(max_length=200, pattern=PRINTABLE)]
_HeaderValue = Annotated[str, msgspec.Meta(max_length=1000)]


class CreateListenerBody(DeliverySettings, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /listeners`."""

    forward_to: Annotated[
        Url, msgspec.Meta(description="http:// or https://; private addresses are allowed, because the listener connects.")
    ]
    name: Name | None = None
    """With a name, the listener resumes where the last one of this name stopped."""
    skip_waiting: bool = False
    """Whether to fail the deliveries that still wait from an earlier run."""

    def endpoint(self) -> CreateEndpointBody:
        """Return the listener's webhook endpoint."""
        settings = {name: getattr(self, name) for name in DeliverySettings.__struct_fields__}
        return CreateEndpointBody(url=self.forward_to, description=self.name or "", **settings)

    def check(self) -> None:
        """Check everything that the decoder cannot check. Raises VALIDATION_ERROR with every invalid field."""
        errors = listener_errors(msgspec.structs.asdict(self)) + dialect_errors(self.signing, self.custom_signing)
        if errors:
            raise invalid_fields(errors)


class ClaimBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /listeners/{id}/claim`."""

    max: Annotated[int, msgspec.Meta(ge=1, le=MAX_CLAIMED)] = 32
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT_SECONDS)] = 0


class PhasesBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How long each phase of an attempt took, in milliseconds. A phase that did not happen is null."""

    dns_ms: _Milliseconds | None = None
    connect_ms: _Milliseconds | None = None
    tls_ms: _Milliseconds | None = None
    first_byte_ms: _Milliseconds | None = None


class ResultBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The result of one attempt: what the receiver responded, or why it did not."""

    lease: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]
    """The delivery's lease, from the claim."""
    status: Annotated[int, msgspec.Meta(ge=100, le=999)] | None = None
    headers: Annotated[dict[_HeaderName, _HeaderValue], msgspec.Meta(max_length=100)] = msgspec.field(default_factory=dict)
    body: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    error: Text500 | None = None
    error_class: ErrorClass | None = None
    timings: PhasesBody = msgspec.field(default_factory=PhasesBody)
    duration_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0


class ReportBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /listeners/{id}/results`."""

    results: Annotated[list[ResultBody], msgspec.Meta(min_length=1, max_length=MAX_RESULTS)]


def listener_errors(fields: Mapping[str, Any]) -> list[FieldProblem]:
    """Return the validation errors that the schema cannot express. Skips absent fields."""
    named = {"url" if name == "forward_to" else name: value for name, value in fields.items()}
    return [("forward_to" if field == "url" else field, message) for field, message in endpoint_errors(named, ANY_NETWORK)]


def report_errors(fields: Mapping[str, Any]) -> list[FieldProblem]:
    """Return the results that have neither a status nor an error."""
    return [
        (f"results[{index}]", "must have a status or an error")
        for index, result in enumerate(fields.get("results", ()))
        if _field(result, "status") is None and _field(result, "error") is None
    ]


def _field(result: ResultBody | Mapping[str, Any], name: str) -> Any:
    return result.get(name) if isinstance(result, Mapping) else getattr(result, name)
