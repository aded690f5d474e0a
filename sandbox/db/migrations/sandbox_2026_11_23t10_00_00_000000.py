"""Every row names its merchant, or a slot that takes a merchant's place, and keys that do not name their merchant are found."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-23T10:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Operator keys and console sign-outs by merchant"

STATEMENTS = (
    # Not named merchant_id: every node of a distributed database has a copy of this table.
    "CREATE TABLE IF NOT EXISTS key_merchants (key_hash bytea PRIMARY KEY, merchant uuid NOT NULL)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON key_merchants TO psp_app",
    "INSERT INTO key_merchants SELECT key_hash, merchant_id FROM api_keys ON CONFLICT (key_hash) DO NOTHING",
    "ALTER TABLE operator_keys ADD COLUMN IF NOT EXISTS merchant_id uuid",
    "UPDATE operator_keys SET merchant_id = md5('operator key ' || key)::uuid WHERE merchant_id IS NULL",
    "ALTER TABLE operator_keys ALTER COLUMN merchant_id SET NOT NULL",
    "ALTER TABLE operator_keys DROP CONSTRAINT IF EXISTS operator_keys_pkey",
    "ALTER TABLE operator_keys ADD CONSTRAINT operator_keys_pkey PRIMARY KEY (merchant_id, key)",
    "ALTER TABLE console_sign_outs ADD COLUMN IF NOT EXISTS merchant_id uuid",
    "UPDATE console_sign_outs SET merchant_id = '00000000-0000-0000-0000-000000000000' WHERE subject = 'operator'",
    # Merchants with the same seed may have keys with the same id: remember the sign-out for each of them.
    "ALTER TABLE console_sign_outs DROP CONSTRAINT IF EXISTS console_sign_outs_pkey",
    """
    INSERT INTO console_sign_outs (subject, session, at, merchant_id)
    SELECT s.subject, s.session, s.at, k.merchant_id FROM console_sign_outs s JOIN api_keys k ON k.id::text = s.subject
    WHERE s.merchant_id IS NULL
    """,
    "DELETE FROM console_sign_outs WHERE merchant_id IS NULL",
    "ALTER TABLE console_sign_outs ALTER COLUMN merchant_id SET NOT NULL",
    "ALTER TABLE console_sign_outs ADD CONSTRAINT console_sign_outs_pkey PRIMARY KEY (merchant_id, subject, session)",
)


async def forwards() -> MigrationManager:
    """Change the tables, unless that was done."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def change() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(change)
    return manager
