"""The database functions of this release: their sources, and how to install them."""

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg

import sandbox

MIGRATION_LOCK: Final = 0x7073705F6D6967
""""psp_mig": an advisory lock, so that processes that start together change the schema one after the other."""
_PROGRAM: Final = Path(sandbox.__file__).parent
_FUNCTION: Final = re.compile(r"^CREATE OR REPLACE FUNCTION (psp_\w+)", re.MULTILINE)
_OURS: Final = "FROM pg_proc WHERE proname LIKE 'psp\\_%' AND pronamespace = current_schema()::regnamespace"
_INSTALLED: Final = f"SELECT proname, obj_description(oid, 'pg_proc') {_OURS}"
_SIGNATURES: Final = f"SELECT oid::regprocedure::text {_OURS}"


@functools.cache
def function_sources() -> Mapping[str, str]:
    """Return the definitions of the database functions by name. Each is in a `.sql` file beside the module that calls it."""
    paths = (path for path in sorted(_PROGRAM.rglob("*.sql")) if path.parent.name != "benches")
    return {found[1]: text for path in paths if (found := _FUNCTION.search(text := path.read_text("utf-8")))}


@functools.cache
def functions_digest() -> str:
    """Return the SHA-256 of all function sources, in hexadecimal."""
    return hashlib.sha256("\n".join(function_sources().values()).encode()).hexdigest()


async def install_functions(conn: "asyncpg.Connection[Any]") -> None:
    """Install this release's database functions in the current schema, unless they are already installed.

    They are part of the release, not of the schema's history. A comment on each function has the digest of all of them.
    """
    sources, digest = function_sources(), functions_digest()
    if {tuple(record) for record in await conn.fetch(_INSTALLED)} == {(name, digest) for name in sources}:
        return
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        for record in await conn.fetch(_SIGNATURES):
            await conn.execute(f"DROP FUNCTION {record[0]}")  # a function's result type cannot be replaced
        for name, source in sources.items():
            await conn.execute(source)
            await conn.execute(f"COMMENT ON FUNCTION {name} IS '{digest}'")
