"""Save a merchant's state and restore it."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Iterator

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call, given, new_key, query, segment
from psp_sandbox.client.models.snapshots import Restored, Snapshot


class SnapshotsApi:
    """Save a merchant's state and restore it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(self, *, limit: int | None = None) -> Iterator[Snapshot]:
        """List snapshots, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.
        """
        return self._caller.pages(Call(Snapshot, "GET", "/sandbox/v1/snapshots", query=query({"limit": limit})))

    def take(self, *, name: str | None = None, idempotency_key: str | None = None) -> Snapshot:
        """Take a snapshot of the merchant's state.

        A snapshot contains everything that a reset deletes, and also webhook endpoints, the clock and the id counter.
        At most 20 per merchant, of 100,000 rows each.

        Raises InvalidState.
        """
        return self._caller.send(
            Call(
                Snapshot,
                "POST",
                "/sandbox/v1/snapshots",
                body=given({"name": name}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def get(self, snapshot_id: str) -> Snapshot:
        """Get a snapshot.

        Raises NotFound.
        """
        return self._caller.send(Call(Snapshot, "GET", f"/sandbox/v1/snapshots/{segment(snapshot_id)}"))

    def delete(self, snapshot_id: str, *, idempotency_key: str | None = None) -> None:
        """Delete a snapshot.

        Raises NotFound.
        """
        self._caller.send(
            Call(
                type(None),
                "DELETE",
                f"/sandbox/v1/snapshots/{segment(snapshot_id)}",
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def restore(self, snapshot_id: str, *, idempotency_key: str | None = None) -> Restored:
        """Restore a snapshot.

        Affects this merchant only, in one transaction, and can be repeated. A frozen clock returns to its time; a
        running clock gets back its offset from the host's clock. Webhooks that were undelivered at the snapshot are
        delivered now.

        Raises NotFound, InvalidState.
        """
        return self._caller.send(
            Call(
                Restored,
                "POST",
                f"/sandbox/v1/snapshots/{segment(snapshot_id)}/restore",
                body=given({}),
                idempotency_key=idempotency_key or new_key(),
            )
        )
