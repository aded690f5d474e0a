"""A version of the sandbox does not touch a database that a newer version has migrated."""

import pytest

from sandbox.infrastructure.db.migrate import MigrationError, migrate, migration_ids
from tests.harness.world import Stack


async def test_an_older_version_refuses_a_newer_database_and_changes_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = max(migration_ids())
    older = migration_ids() - {newest}

    async def install(conn: object) -> None:
        raise AssertionError("the older version installs its functions")

    monkeypatch.setattr("sandbox.infrastructure.db.migrate.migration_ids", lambda: older)
    monkeypatch.setattr("sandbox.infrastructure.db.migrate.install_functions", install)
    with pytest.raises(MigrationError, match="newer version") as refusal:
        await migrate(stack.database_url)
    text = str(refusal.value)
    assert newest in text
    assert "restore the backup" in text
    assert "\n" not in text
