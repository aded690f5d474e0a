"""Request bodies that create and reconcile sales. Pure."""

from typing import Annotated

import msgspec

from sandbox.domain.enumerations import Verdict
from sandbox.domain.fields import Amount, Name, Uuid, about


class CreateSaleBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /sales`."""

    user_id: Annotated[Uuid, about("The user who made the sale.")]
    brand: Annotated[Name, about("The brand that was sold.")]
    earning: Annotated[Amount, about("The amount that the user earns, such as 40.00.")]


class ReconcileItem(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The decision about one sale."""

    sale_id: Uuid
    status: Verdict


ReconcileBody = Annotated[list[ReconcileItem], msgspec.Meta(min_length=1, max_length=1000)]
"""The body of `POST /reconcile`."""
