"""A merchant's own scenarios and faults. Raw SQL, because Piccolo does not support composite keys."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T11:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Own scenarios and faults"

STATEMENTS = (
    """
    CREATE TABLE IF NOT EXISTS scenario_rules (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        name text COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
        position integer NOT NULL CHECK (position > 0),
        match jsonb NOT NULL,
        steps jsonb NOT NULL,
        PRIMARY KEY (merchant_id, id),
        UNIQUE (merchant_id, name)
    )
    """,
    # A payout keeps a copy of the steps of the rule that it follows, so that later changes to the rule do not affect it.
    "ALTER TABLE payouts ADD COLUMN IF NOT EXISTS path jsonb",
    "ALTER TABLE payouts ADD COLUMN IF NOT EXISTS scenario_header text",
    # `matches` counts the requests or deliveries that matched a fault, `hits` those that it hit. The row's lock keeps both
    # exact.
    """
    CREATE TABLE IF NOT EXISTS faults (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        target text COLLATE "C" NOT NULL CHECK (target IN ('api', 'webhooks')),
        kind text COLLATE "C" NOT NULL,
        match jsonb NOT NULL,
        parameters jsonb NOT NULL,
        probability double precision NOT NULL CHECK (probability BETWEEN 0 AND 1),
        count integer CHECK (count > 0),
        seed bigint,
        matches bigint NOT NULL CHECK (matches >= 0),
        hits bigint NOT NULL CHECK (hits BETWEEN 0 AND matches),
        expires_at timestamptz,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id),
        CHECK (hits <= count)
    ) WITH (fillfactor = 50)
    """,
    "GRANT SELECT, INSERT, UPDATE, DELETE ON scenario_rules, faults TO psp_app",
)


async def forwards() -> MigrationManager:
    """Create the tables that do not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
