"""Sessions of the console that were ended before they expired."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-23T00:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Console sign-outs"

# `subject` is the API key that signed in, or "operator". An empty session means all sessions that began until `at`.
STATEMENTS = (
    """
    CREATE TABLE IF NOT EXISTS console_sign_outs (
        subject text NOT NULL,
        session text NOT NULL,
        at timestamptz NOT NULL,
        PRIMARY KEY (subject, session)
    )
    """,
    "GRANT SELECT, INSERT, UPDATE, DELETE ON console_sign_outs TO psp_app",
)


async def forwards() -> MigrationManager:
    """Create the table, unless it exists."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
