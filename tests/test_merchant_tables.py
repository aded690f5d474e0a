"""Snapshot, reset and deletion of a merchant cover every table with a merchant's data."""

from sandbox.worlds.merchants.tables import TABLES, WORLD
from tests.harness.world import Stack


def test_tables_lists_exactly_the_tables_with_a_merchant_id(stack: Stack) -> None:
    found = stack.execute(
        """
        SELECT table_name::text FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
        WHERE table_schema = 'public' AND column_name = 'merchant_id' AND table_type = 'BASE TABLE'
        """
    )
    # In operator_keys, the merchant_id is a slot that depends on the key.
    assert sorted(row["table_name"] for row in found) == sorted([*TABLES, "operator_keys"])


def test_a_snapshot_has_exactly_one_column_per_table_of_a_merchants_data(stack: Stack) -> None:
    found = stack.execute(
        """
        SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
        WHERE attrelid = 'snapshot_rows'::regclass AND attnum > 0 AND NOT attisdropped
        """
    )
    not_data = {"merchant_id", "snapshot_id", "table_name", "part"}
    assert {row["name"]: row["type"] for row in found if row["name"] not in not_data} == {
        table: f"{table}[]" for table in WORLD
    }


def test_referencing_tables_are_listed_before_the_tables_they_reference(stack: Stack) -> None:
    """Rows are deleted in this order. Foreign keys with ON DELETE CASCADE do not need it."""
    found = stack.execute(
        """
        SELECT conrelid::regclass::text AS source, confrelid::regclass::text AS target FROM pg_constraint
        WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND confdeltype <> 'c'
        """
    )
    assert [row for row in found if TABLES.index(row["source"]) > TABLES.index(row["target"])] == []
