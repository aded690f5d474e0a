"""Bulk credits: upload a file, follow its progress, and see which rows failed and why."""

import asyncio
from typing import Final

from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column
from sandbox.server.console.pages.users import TO_USER
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
_TO_CREDIT: Final = "/users/bulk-credit/{activity_id}"
_CREDITS: Final = (
    Column("created_at", "Uploaded", "time", link=_TO_CREDIT),
    Column("status", "Status", "status", link=_TO_CREDIT),
    Column("total", "Rows", "number"),
    Column("succeeded", "Credited", "number"),
    Column("failed", "Failed", "number"),
    Column("invalid", "Invalid", "number"),
    Column("duplicates", "Equal rows", "number"),
    Column("completed_at", "Completed", "time"),
    Column("activity_id", "Id", "id", link=_TO_CREDIT),
)
_ROWS: Final = (
    Column("line", "Line", "number"),
    Column("uuid", "User", "code"),
    Column("amount", "Amount", "code"),
    Column("error", "Error"),
)
_SAME_AS: Final = Column("same_as_line", "Same as line", "number")
_DUPLICATES: Final = (*_ROWS[:-1], _SAME_AS, Column("status", "Status", "status"))
_ALL: Final = (
    Column("line", "Line", "number"),
    Column("uuid", "User", "id", link=TO_USER.replace("user_id", "uuid")),
    Column("amount", "Amount"),
    Column("status", "Status", "status"),
    _SAME_AS,
    Column("error", "Error"),
    Column("transfer_id", "Transfer", "id"),
)
_EXAMPLE_USERS: Final = 3


@pages.page("/users/bulk-credit")
async def bulk_credits(view: View) -> Response:
    """Upload a file, and list the files uploaded before."""
    table, users = await asyncio.gather(
        view.table(
            "bulk-credits", "Bulk credits, newest first", _CREDITS, "list_bulk_credits",
            empty="Nothing uploaded yet. Upload a CSV file above: press n.",
        ),
        view.call("list_users", query={"limit": str(_EXAMPLE_USERS)}, shown=False),
    )  # fmt: skip
    rows = [f"{user['id']},{number}00.00" for number, user in enumerate(users["data"], 1)]
    example = "\n".join(["uuid,amount", *rows]) if rows else ""
    return await view.render("bulk_credits.html", tables=[table], example=example)


@pages.page("/users/bulk-credit/{activity_id}")
async def bulk_credit(view: View) -> Response:
    """Show the progress of a bulk credit, and its rows, those that a person should look at first."""
    path = {"activity_id": view.path_parameters["activity_id"]}
    activity = await view.call("get_bulk_credit", path=path)
    operation = "list_bulk_credit_items"
    failed, invalid, duplicate, rows = await asyncio.gather(
        view.table("failed-rows", "Failed rows", _ROWS, operation, path=path, query={"status": "FAILED"}),
        view.table("invalid-rows", "Invalid rows", _ROWS, operation, path=path, query={"status": "INVALID"}),
        view.table(
            "duplicate-rows", "Rows that equal an earlier row", _DUPLICATES, operation, path=path, query={"duplicates": "only"}
        ),
        view.table("rows", "All rows", _ALL, operation, path=path, empty="The file has no rows."),
    )
    return await view.render(
        "bulk_credit.html",
        tables=[failed, invalid, duplicate, rows],
        activity=activity,
        done=activity["succeeded"] + activity["failed"] + activity["invalid"],
    )
