"""Tools for worlds: merchants of their own, each with its clock, ledger and keys. And the audit of one, and its export."""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sandbox.cli.mcp_server.results import Refusal, Result, plain
from sandbox.cli.mcp_server.tool import Calling, Limit, count, first, tool

_WorldId = Annotated[str, Field(description="The world's id, from create_world or list_worlds.")]


@tool("Create a world", scope="operator")
async def create_world(
    calling: Calling,
    name: Annotated[str, Field(description="A name to recognize it by.", max_length=100)] = "agent",
    opening_balance: Annotated[str, Field(description="The opening balance in PKR.")] = "1000000.00",
    frozen_at: Annotated[
        str | None, Field(description="Freeze the clock at this time, such as 2030-01-01T00:00:00Z. Default: the clock runs.")
    ] = None,
    seed: Annotated[int | None, Field(ge=0, description="Make ids, probabilities and retry times repeatable.")] = None,
    show_key: Annotated[
        bool, Field(description="Return the API key. Ask for it only if code outside of this conversation must use the world.")
    ] = False,
) -> Result:
    """Create a world: a merchant of its own, with its own balance, clock and data, isolated from all others.

    Use one world per experiment. Give its id as `world` to the other tools; this server keeps its API key, so that you need no
    key. Delete it with delete_world when you are done.
    """
    created = await calling.psp.merchants.create(name, opening_balance=opening_balance, frozen_at=frozen_at, seed=seed)
    calling.access.keep(calling.keys, created.merchant_id, created.api_key)
    data: dict[str, Any] = {"world": created.merchant_id, "name": name, "opening_balance": opening_balance}
    if show_key:
        data["api_key"] = created.api_key
    return Result(f"World {created.merchant_id} is ready.", data)


@tool("List the worlds", reads=True, scope="operator")
async def list_worlds(calling: Calling, limit: Limit = 20) -> Result:
    """List the merchants of this sandbox, newest first. `usable` says whether other tools accept the id as `world`."""
    found = await first(calling.psp.merchants.list(limit=limit + 1), limit)
    items = [
        {"world": (world := item.pop("merchant_id")), **item, "usable": calling.access.has(calling.keys, world)}
        for item in found["items"]
    ]
    return Result(count(found, "world"), found | {"items": items})


@tool("Delete a world", destroys=True, scope="operator")
async def delete_world(calling: Calling, world: _WorldId) -> Result:
    """Delete a world and all its data. This cannot be undone."""
    await calling.psp.merchants.delete(world)
    calling.access.forget(calling.keys, world)
    return Result(f"Deleted {world}.", {"deleted": world})


@tool("Audit the ledger", reads=True)
async def audit(calling: Calling) -> Result:
    """Check the books: that every payout's money, timeline, events and deliveries agree. `failed` is empty if all is well."""
    report = await calling.psp.audit()
    wrong = [plain(check) for check in report.checks if not check.ok]
    text = f"{len(report.checks)} checks: " + ("all passed." if report.ok else f"{len(wrong)} failed.")
    return Result(text, {"ok": report.ok, "passed": [check.name for check in report.checks if check.ok], "failed": wrong})


@tool("Export the world to a file", local=True)
async def export_world(
    calling: Calling,
    file: Annotated[
        str, Field(description="The file to write, ending in .json, in the server's folder or below. It must not exist yet.")
    ],
) -> Result:
    """Write the whole world to a file: its clock, settings, scenarios, faults, journal and books, without keys and secrets.

    `psp world import FILE` restores it elsewhere, for example to attach a world to a bug report.
    """
    if not file.endswith(".json"):
        raise Refusal("INVALID_ARGUMENTS", f"{file} does not end in .json.", "Choose another name.")
    content = json.dumps(await calling.psp.world.export(), ensure_ascii=False).encode()
    path = await asyncio.to_thread(_write_new, calling.access.folder, file, content)
    return Result(f"Wrote {path}, {len(content)} bytes.", {"file": str(path), "bytes": len(content)})


def _write_new(folder: Path | None, file: str, content: bytes) -> Path:
    """Write a file below the folder, which must not exist yet, and return its absolute path. Raises Refusal."""
    if folder is None:
        raise Refusal(
            "OUTSIDE_FOLDER", "This server may write no files.", "Ask the user to start it with `psp mcp --folder DIR`."
        )
    # Links are not resolved here, because none is followed below.
    path = Path(os.path.normpath(folder / file))
    if not path.is_relative_to(folder):
        raise Refusal(
            "OUTSIDE_FOLDER", f"{file} is not below {folder}, where this server may write.", "Choose a file below it."
        )
    try:
        with contextlib.ExitStack() as opened, open(path.name, "xb", opener=_opener(folder, path.parent, opened)) as output:
            output.write(content)
    except OSError as error:
        reason = f"{path} cannot be written: {error.strerror}. Symbolic links are not followed."
        raise Refusal("NOT_WRITTEN", reason, "Choose another file, in a folder that exists.") from error
    return path


def _opener(folder: Path, parent: Path, opened: contextlib.ExitStack) -> Callable[[str, int], int]:
    """Return an opener of files in `parent`, which is below `folder`. No folder on the way may be a symbolic link.

    It opens one folder after the other, so that replacing one by a link in the meantime cannot lead elsewhere.
    """
    current = _open_folder(folder, None, opened, follow=True)
    for part in parent.relative_to(folder).parts:
        current = _open_folder(part, current, opened, follow=False)
    return lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, mode=0o666, dir_fd=current)


def _open_folder(name: str | Path, within: int | None, opened: contextlib.ExitStack, *, follow: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(name, flags, dir_fd=within)
    opened.callback(os.close, descriptor)
    return descriptor
