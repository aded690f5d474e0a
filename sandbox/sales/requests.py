"""Bodies that make and reconcile sales. Pure."""

from typing import Annotated, Literal

import msgspec

from sandbox.users.requests import Name

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")]


class CreateSaleBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /sales`."""

    user_id: Id
    brand: Name
    earning: msgspec.Raw


class ReconcileItem(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What became of one sale."""

    sale_id: Id
    status: Literal["APPROVED", "DECLINED"]


ReconcileBody = Annotated[list[ReconcileItem], msgspec.Meta(min_length=1, max_length=1000)]
"""The body of `POST /reconcile`."""
