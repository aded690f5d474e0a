"""A table that belongs to merchants cannot be forgotten by snapshot, reset or deletion."""

from sandbox.merchants.tables import TABLES, WORLD
from tests.harness.world import Stack


def test_every_table_with_a_merchant_is_on_the_list_and_nothing_else(stack: Stack) -> None:
    found = stack.execute(
        """
        SELECT table_name::text FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
        WHERE table_schema = 'public' AND column_name = 'merchant_id' AND table_type = 'BASE TABLE'
        """
    )
    assert sorted(row["table_name"] for row in found) == sorted(TABLES)


def test_a_snapshot_has_a_column_for_each_table_of_a_world_and_no_other(stack: Stack) -> None:
    found = stack.execute(
        """
        SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
        WHERE attrelid = 'snapshot_rows'::regclass AND attnum > 0 AND NOT attisdropped
        """
    )
    own = {"merchant_id", "snapshot_id", "table_name", "part"}
    assert {row["name"]: row["type"] for row in found if row["name"] not in own} == {table: f"{table}[]" for table in WORLD}


def test_what_names_others_comes_before_what_it_names(stack: Stack) -> None:
    """But for what goes along by itself."""
    found = stack.execute(
        """
        SELECT conrelid::regclass::text AS source, confrelid::regclass::text AS target FROM pg_constraint
        WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND confdeltype <> 'c'
        """
    )
    assert [row for row in found if TABLES.index(row["source"]) > TABLES.index(row["target"])] == []
