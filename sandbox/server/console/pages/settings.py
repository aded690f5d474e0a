"""The merchant's settings and API keys."""

import asyncio
from typing import Final, get_args

from sandbox.domain.enumerations import DefaultScenario
from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column, Table
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
KEYS: Final = (
    Column("name", "Name"),
    Column("role", "Role"),
    Column("created_at", "Created (host's time)", "time"),
    Column("id", "Id", "id"),
)


@pages.page("/world/settings")
async def settings(view: View) -> Response:
    """Show the settings and the API keys with their forms. Only admins may list keys."""
    found, keys = await asyncio.gather(view.call("get_settings"), _keys(view))
    return await view.render(
        "settings.html",
        tables=[] if keys is None else [keys],
        settings=found,
        default_scenarios=get_args(DefaultScenario),
        keys_access=view.access("list_keys"),
        created=view.fields("create-key").result,
    )


async def _keys(view: View) -> Table | None:
    if not view.access("list_keys").is_allowed:
        return None
    return await view.table("keys", "API keys, newest first", KEYS, "list_keys")
