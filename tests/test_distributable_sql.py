"""All SQL can also run on a database that Citus distributes by merchant, even if Citus plans it. Plain PostgreSQL checks it.

The rules look at PostgreSQL's own parse tree of each statement: those in constants and in function bodies, those that Piccolo
builds, those of the database functions, and those that are built while a world is saved, emptied, restored and exported.
"""

import ast
import asyncio
import json
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sandbox.infrastructure.db.engine import APPLICATION_ROLE, transaction
from sandbox.infrastructure.db.functions import function_sources
from sandbox.worlds.bundles.export import read_world
from sandbox.worlds.snapshots import store
from tests.harness import statements
from tests.harness.parse_trees import Parser, Tree, parse_tree
from tests.harness.plans import MERCHANT, NOW
from tests.harness.python_source import parse_python
from tests.harness.sql_rules import (
    Catalogue,
    Rule,
    anonymous_rows,
    changes_that_vary,
    selects_of_nothing,
    tables_without_merchant,
)
from tests.harness.work import pooled
from tests.harness.world import Stack
from tests.test_query_plans import queries

ROOT = Path(__file__).parent.parent
BUILT_AT_RUN_TIME = {
    "sandbox.worlds.merchants.service.delete_merchant",
    "sandbox.worlds.bundles.export.read_world",
    "sandbox.worlds.snapshots.store._delete_later_rows",
    "sandbox.worlds.snapshots.store._parts",
    "sandbox.worlds.snapshots.store.count_rows",
    "sandbox.worlds.snapshots.store.restore_world",
}
"""Functions that build SQL. What those of worlds build is run here. The other one builds statements that delete all of a
merchant's rows of a table.
"""
ACROSS_MERCHANTS = {
    "sandbox.users.aggregator.store.due_http": "what is due",
    "sandbox.users.aggregator.store.due_own": "what is due",
    "sandbox.worlds.merchants.service._page_of_merchants": "the operator's list",
    "sandbox.users.sales.scheduled.merchants": "what is due",
    "sandbox.webhooks.delivery.outbox.claim": "several merchants of a shard, each named in an array",
    "sandbox.users.aggregator.store.any_rows_or_vendors": "whether there is anything to poll",
    "worker.sweep._ANYTHING_SCHEDULED": "whether anything may become due",
    "worker.sweep._DUE": "what is due",
    "worker.sweep._EXPIRED": "what has expired",
    "worker.sweep._FROZEN_WITH_DUE_DELIVERIES": "what is due",
    "worker.sweep._PURGE_OPERATOR_KEYS": "what has expired",
    "worker.sweep._TO_CREDIT": "what is due",
    "ipn.callback._FIND_BY_ID": "the callback does not name its merchant",
    "ipn.callback._FIND_BY_REFERENCE": "the callback does not name its merchant",
    "ipn.callback.newest_merchants": "the callback does not name its merchant",
}
"""Statements that do not name the merchant for every table, and why. They run on one shard's tables after the other."""


class Seen(NamedTuple):
    """What PostgreSQL made of the statements, by name, and the places of those in database functions."""

    catalogue: Catalogue
    trees: Mapping[str, Tree]
    places: Collection[str]


def all_statements() -> Mapping[str, str]:
    """Return the product's statements by name."""
    inline = {name: text for name, text in statements.inline().items() if not text.endswith("{")}
    return statements.constants() | inline | {name: text for name, (text, _) in queries().items()}


async def build_and_run(conn: Any) -> None:
    """Run the functions of worlds that build SQL."""
    now = datetime.now(UTC)
    await conn.execute(f"INSERT INTO merchants VALUES ('{MERCHANT}', 'M', 'PKR', NULL, 'x', 'x', '{NOW}')")
    await conn.execute(f"INSERT INTO worlds (merchant_id) VALUES ('{MERCHANT}')")
    snapshot_id = str(uuid.uuid4())
    await store.count_rows(conn, MERCHANT)
    await store.take_snapshot(conn, MERCHANT, snapshot_id, "S", now, now, MERCHANT)
    await store.empty_world(conn, MERCHANT)
    await store.restore_world(conn, MERCHANT, snapshot_id)  # a world that was emptied, then one that is intact
    await store.restore_world(conn, MERCHANT, snapshot_id)
    await store.clear_world(conn, MERCHANT)
    await read_world(conn, MERCHANT)


async def run_functions(conn: Any) -> None:
    """Run every statement of the database functions."""
    needs = json.dumps({name: [MERCHANT] for name in ("keys", "references", "psp_references", "payouts", "users")})
    for wait in (True, False):
        await conn.fetch("SELECT * FROM psp_claim($1, 1, $2, $3, $4, 1)", MERCHANT, wait, datetime.now(UTC), needs)
        await conn.fetch("SELECT * FROM psp_claim($1, 1, $2, $3, $4, 0)", MERCHANT, wait, datetime.now(UTC), needs)
    no_rows = ", ".join(["ARRAY['[]'::json]"] * 10)
    await conn.fetch(f"SELECT psp_write($1, $2, {no_rows}, ARRAY[''])", [MERCHANT], [datetime.now(UTC)])


@pytest.fixture(scope="module")
def seen(stack: Stack) -> Seen:
    """Let PostgreSQL parse all statements. Everything is rolled back."""

    async def see() -> Seen:
        parser = await Parser.connect(stack.database_url)
        conn = parser.conn
        try:
            catalogue = await Catalogue.read(conn)
            trees = {name: await parser.parse(text) for name, text in all_statements().items()}
            await conn.execute("BEGIN")
            before = len(parser.logged)
            await build_and_run(conn)
            await run_functions(conn)
            found = {logged.text: logged.context for logged in parser.logged[before:]}
            trees |= {f"at run time {number} {place}": parse_tree(text) for number, (text, place) in enumerate(found.items())}
            return Seen(catalogue, trees, [place for place in found.values() if place])
        finally:
            await conn.close()

    return asyncio.run(see())


def violations(seen: Seen, rule: Rule) -> Mapping[str, Collection[str]]:
    """Return the violations of a rule by statement."""
    found = {name: set(rule(seen.catalogue, tree)) for name, tree in seen.trees.items()}
    return {name: problems for name, problems in found.items() if problems}


@pytest.mark.parametrize("rule", [anonymous_rows, selects_of_nothing, changes_that_vary], ids=lambda rule: rule.__name__)
def test_every_statement_keeps_the_rule(seen: Seen, rule: Rule) -> None:
    assert violations(seen, rule) == {}


def test_every_statement_names_the_merchant_for_each_table_unless_it_is_for_all_merchants(seen: Seen) -> None:
    assert violations(seen, tables_without_merchant).keys() == ACROSS_MERCHANTS.keys()


def test_every_statement_of_the_database_functions_is_seen(seen: Seen) -> None:
    for name, source in function_sources().items():
        body = source.partition("$function$")[2].partition("$function$")[0]
        code = [re.sub(r"--.*", "", line).strip() for line in body.splitlines()]
        expected, previous = set(), "BEGIN"
        for number, line in enumerate(code, 1):
            begins = previous.endswith((";", "THEN", "ELSE", "BEGIN")) and re.match(r"SELECT|INSERT|UPDATE|DELETE|WITH", line)
            if begins or ":= ARRAY(" in line:
                expected.add(number)
            previous = line or previous
        found = {int(line) for place in seen.places for line in re.findall(rf"{name}\(.*\) line (\d+) at", place)}
        assert len(expected) > 5
        assert expected <= found


def test_the_functions_that_build_sql_are_known() -> None:
    """Not seen at all: migrations, benchmarks, command-line tools, and COPY."""
    found = {name.partition(":")[0] for name, text in statements.inline().items() if text.endswith("{")}
    assert found == BUILT_AT_RUN_TIME


@pytest.mark.parametrize(
    ("rule", "statement", "found"),
    [
        (anonymous_rows, "SELECT ARRAY(SELECT ROW (id, name) FROM users WHERE merchant_id = $1)", "an anonymous row"),
        (anonymous_rows, "SELECT u FROM users u WHERE merchant_id = $1", "a whole row"),
        (anonymous_rows, "SELECT array_agg(n) FROM (SELECT id, name FROM users) n", "a whole row"),
        (anonymous_rows, "SELECT json_agg(n) FROM (SELECT id, name FROM users) n", None),
        (anonymous_rows, "SELECT json_agg(ROW (u.*)::public.users) FROM users u WHERE (id, name) > ($1, $2)", None),
        (selects_of_nothing, "SELECT FROM users FOR UPDATE", "a SELECT without a column"),
        (selects_of_nothing, "SELECT id FROM users u WHERE EXISTS (SELECT FROM sales s WHERE s.id = u.id)", "a SELECT without"),
        (selects_of_nothing, "SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM sales s WHERE s.id = u.id)", None),
        (changes_that_vary, "UPDATE users SET updated_at = now()", "now in a change"),
        (changes_that_vary, "UPDATE users SET updated_at = CURRENT_TIMESTAMP", "CURRENT_ in a change"),
        (changes_that_vary, "UPDATE users SET updated_at = coalesce($1, created_at + interval '1 day')", "timestamptz_pl"),
        (changes_that_vary, "UPDATE users SET name = created_at::text", "a cast in a change"),
        (changes_that_vary, "UPDATE users SET version = DEFAULT", "DEFAULT in an UPDATE"),
        (changes_that_vary, "DELETE FROM users WHERE created_at < now()", "now in a change"),
        (changes_that_vary, "DELETE FROM users WHERE created_at - $1::timestamptz > interval '1 day'", None),
        (
            changes_that_vary,
            "INSERT INTO payout_metadata AS m (merchant_id, pair, payout_id) VALUES ($1, $2, $3) "
            "ON CONFLICT (merchant_id, pair, payout_id) DO UPDATE SET payout_id = gen_random_uuid()",
            "gen_random_uuid in a change",
        ),
        (changes_that_vary, "INSERT INTO payout_metadata (merchant_id, pair) VALUES ($1, gen_random_uuid())", None),
        (tables_without_merchant, "SELECT p.id FROM payouts p JOIN users u ON u.merchant_id = p.merchant_id "
            "WHERE p.merchant_id = $1", "users without its merchant"),
        (tables_without_merchant, "SELECT p.id FROM payouts p LEFT JOIN users u ON u.merchant_id = $1 WHERE p.merchant_id = $1",
            None),
        (tables_without_merchant, "DELETE FROM payouts WHERE merchant_id = $1 OR id = $2", "payouts without its merchant"),
        (tables_without_merchant, "UPDATE users SET name = '' WHERE id = $1", "users without its merchant"),
        (tables_without_merchant, "SELECT (SELECT name FROM users WHERE id = p.user_id) FROM payouts p WHERE merchant_id = $1",
            "users without its merchant"),
    ],
)  # fmt: skip
async def test_the_rules_find_violations(stack: Stack, rule: Rule, statement: str, found: str | None) -> None:
    parser = await Parser.connect(stack.database_url)
    try:
        problems = list(rule(await Catalogue.read(parser.conn), await parser.parse(statement)))
    finally:
        await parser.conn.close()
    assert [problem.startswith(found or "") for problem in problems] == ([] if found is None else [True])


# ---- Roles, COPY and migrations


def source_files() -> Iterator[tuple[str, ast.Module]]:
    """Yield the product's modules, except migrations and benchmarks, by path."""
    for folder in ("sandbox", "worker", "ipn", "seeds"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not {"migrations", "benches"} & set(path.relative_to(ROOT).parts):
                yield str(path.relative_to(ROOT)), parse_python(path)


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield all strings."""
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_the_role_changes_only_at_the_beginning_of_a_transaction() -> None:
    """Citus refuses to change it after the first statement."""
    pattern = re.compile(r"\b(SET|RESET)\s+(LOCAL\s+|SESSION\s+)?(ROLE|SESSION AUTHORIZATION)\b|set_config")
    found = {(path, text) for path, tree in source_files() for text in texts(tree) if pattern.search(text)}
    assert found == {("sandbox/infrastructure/db/engine.py", "SET LOCAL ROLE NONE")}


async def test_a_transaction_has_one_role_from_the_beginning(stack: Stack) -> None:
    async with pooled(stack.database_url, 1):
        for as_database_owner in (False, True, False):
            async with transaction(MERCHANT, as_database_owner=as_database_owner) as conn:
                assert (await conn.fetchval("SELECT current_user") == APPLICATION_ROLE) is not as_database_owner


def test_copy_writes_to_the_table_that_copy_target_returns() -> None:
    """A name may mean a view."""
    functions = [
        (path, node)
        for path, tree in source_files()
        for node in ast.walk(tree)
        if isinstance(node, (ast.AsyncFunctionDef, ast.FunctionDef)) and re.search(r"\.copy_\w*to_table\(", ast.unparse(node))
    ]
    assert {path for path, _ in functions} == {"sandbox/users/bulk_credit/service.py", "sandbox/worlds/bundles/importing.py"}
    for path, function in functions:
        code = ast.unparse(function)
        target = re.search(r"(\w+), (\w+) = await copy_target\(", code)
        assert target is not None, path
        assert re.search(rf"\.copy_\w*to_table\({target[1]}, schema_name={target[2]},", code), path


def problems_of_alter(text: str) -> list[str]:
    """Return what Citus refuses in ALTER TABLE on a distributed table."""
    found = []
    for statement in re.findall(r"ALTER TABLE[^;]*", re.sub(r"--[^\n]*|'[^']*'", "", text)):
        nested = 1
        while nested:
            statement, nested = re.subn(r"\([^()]*\)", " ", statement)
        if "," in statement:
            found.append("several subcommands")
        if re.search(r"\bADD\b(?! CONSTRAINT \w).*\b(CHECK|REFERENCES|UNIQUE|PRIMARY KEY|EXCLUDE)\b", statement, re.DOTALL):
            found.append("a constraint that is not added by itself and by name")
    return found


def test_migrations_alter_tables_in_steps_that_citus_accepts() -> None:
    folder = ROOT / "sandbox" / "infrastructure" / "db" / "migrations"
    found = {path.name: problems_of_alter(path.read_text()) for path in folder.glob("*.sql")}
    found |= {p.name: [e for text in texts(parse_python(p)) for e in problems_of_alter(text)] for p in folder.glob("*.py")}
    assert found
    assert {name: problems for name, problems in found.items() if problems} == {}


@pytest.mark.parametrize(
    ("statement", "count"),
    [
        ("ALTER TABLE users ADD COLUMN a int, ADD COLUMN b int", 1),
        ("ALTER TABLE users ADD COLUMN IF NOT EXISTS a numeric(20, 2)", 0),
        ("ALTER TABLE users ADD COLUMN a int CHECK (a > 0)", 1),
        ("ALTER TABLE users ADD COLUMN a int CONSTRAINT positive CHECK (a > 0)", 1),
        ("ALTER TABLE users ADD UNIQUE (merchant_id, a)", 1),
        ("ALTER TABLE users ADD CONSTRAINT positive CHECK (a > 0 AND b IN (1, 2)); ALTER TABLE users DROP COLUMN b", 0),
        ("DO $$ BEGIN ALTER TABLE users DROP COLUMN a, DROP COLUMN b; END $$", 1),
    ],
)
def test_the_check_of_migrations_finds_what_citus_refuses(statement: str, count: int) -> None:
    assert len(problems_of_alter(statement)) == count
