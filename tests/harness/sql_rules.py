"""Rules for SQL that Citus can run on a distributed database. Each yields the violations in a statement's parse tree."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import asyncpg

from tests.harness.parse_trees import DELETE, INSERT, RECORD, SELECT, UPDATE, Tree, nodes


class Catalogue(NamedTuple):
    """What the rules need to know about the objects of a database, by their numbers."""

    functions: Mapping[str, tuple[str, str]]
    """Name and volatility."""
    text_functions: Mapping[str, str]
    """The volatility of a type's conversion to or from text."""
    merchant_columns: Mapping[str, str]
    """Of each table that has one, the number of the column merchant_id."""
    tables: Mapping[str, str]

    @classmethod
    async def read(cls, conn: "asyncpg.Connection[asyncpg.Record]") -> "Catalogue":
        """Read it from the database."""
        functions = await conn.fetch("SELECT oid::text, proname::text, provolatile::text FROM pg_proc")
        types = await conn.fetch(
            "SELECT t.oid::text, max(p.provolatile::text) FROM pg_type t JOIN pg_proc p ON p.oid IN (t.typinput, t.typoutput) "
            "GROUP BY t.oid"
        )
        columns = await conn.fetch(
            "SELECT c.oid::text, attnum::text, relname::text FROM pg_class c JOIN pg_attribute ON attrelid = c.oid "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attname = 'merchant_id'"
        )
        return cls(
            {oid: (name, volatility) for oid, name, volatility in functions},
            dict(types),
            {oid: number for oid, number, _ in columns},
            {oid: name for oid, _, name in columns},
        )


Rule = Callable[[Catalogue, Tree], Iterator[str]]


def function_of(node: Tree) -> str | None:
    """Return the number of the function that a node calls."""
    fields = {"FUNCEXPR": "funcid", "AGGREF": "aggfnoid", "WINDOWFUNC": "winfnoid"}
    found: str | None = node.get(fields.get(node["node"], "opfuncid"))
    return found


def anonymous_rows(catalogue: Catalogue, tree: object, as_json: bool = False) -> Iterator[str]:
    """A row without a type cannot pass between nodes. Functions that turn one into JSON are fine."""
    if isinstance(tree, list):
        for part in tree:
            yield from anonymous_rows(catalogue, part, as_json)
    if not isinstance(tree, dict):
        return
    if not as_json and (tree["node"] == "ROWEXPR" and tree["row_typeid"] == RECORD):
        yield "an anonymous row"
    if not as_json and tree["node"] == "VAR" and tree["varattno"] == "0":
        yield "a whole row; write ROW (t.*)::public.<table>"
    if tree["node"] == "QUERY":
        as_json = False
    elif (function := function_of(tree)) is not None and function in catalogue.functions:
        as_json = catalogue.functions[function][0].startswith("json")
    for field, value in tree.items():
        if field != "exclRelTlist":  # the columns of EXCLUDED: PostgreSQL adds the whole row by itself
            yield from anonymous_rows(catalogue, value, as_json)


def selects_of_nothing(_: Catalogue, tree: Tree) -> Iterator[str]:
    """Citus writes a SELECT without columns in a way that PostgreSQL does not parse."""
    for query in nodes(tree, "QUERY"):
        if query["commandType"] == SELECT and query["targetList"] is None:
            yield "a SELECT without a column; write SELECT 1"


def changes_that_vary(catalogue: Catalogue, tree: Tree) -> Iterator[str]:
    """What an UPDATE or DELETE finds, and what an UPDATE or ON CONFLICT writes, must depend on nothing but rows and arguments.

    Also, DEFAULT in an UPDATE is null where the table's name means a view.
    """
    for query in nodes(tree, "QUERY"):
        changes: list[object] = []
        if query["commandType"] in (UPDATE, DELETE):
            changes += [query["jointree"], *([query["targetList"]] if query["commandType"] == UPDATE else [])]
        if query["onConflict"] is not None:
            changes += [query["onConflict"][name] for name in ("arbiterElems", "onConflictSet", "onConflictWhere")]
        for node in nodes(changes):
            function = function_of(node)
            name, volatility = catalogue.functions.get(function or "", ("", "i"))
            if node["node"] == "COERCEVIAIO":
                kinds = [node["resulttype"], *(node["arg"].get(name) for name in ("vartype", "paramtype", "consttype"))]
                name, volatility = "a cast", max(catalogue.text_functions.get(kind, "i") for kind in kinds)
            if node["node"] == "SQLVALUEFUNCTION":
                name, volatility = "CURRENT_", "s"
            if volatility != "i":
                yield f"{name} in a change"
            if node["node"] == "SETTODEFAULT":
                yield "DEFAULT in an UPDATE"


def tables_without_merchant(catalogue: Catalogue, tree: Tree) -> Iterator[str]:
    """With `merchant_id = <argument>` for each table, a statement needs one shard."""
    for query in nodes(tree, "QUERY"):
        named = set(_filtered(query["jointree"], catalogue, query["rtable"] or []))
        for number, table in enumerate(query["rtable"] or [], 1):
            is_inserted = query["commandType"] == INSERT and str(number) == query["resultRelation"]
            is_excluded = query["onConflict"] is not None and str(number) == query["onConflict"]["exclRelIndex"]
            is_read = table["rtekind"] == "0" and not is_inserted and not is_excluded
            if is_read and table["relid"] in catalogue.tables and str(number) not in named:
                yield f"{catalogue.tables[table['relid']]} without its merchant"


def _filtered(quals: object, catalogue: Catalogue, tables: list[Tree]) -> Iterator[str]:
    """Yield the numbers of the query's tables for which conditions, joined by AND, require a merchant."""
    if isinstance(quals, list):
        for part in quals:
            yield from _filtered(part, catalogue, tables)
    if not isinstance(quals, dict):
        return
    if quals["node"] in ("FROMEXPR", "JOINEXPR") or (quals["node"] == "BOOLEXPR" and quals["boolop"] == "and"):
        for name in ("fromlist", "larg", "rarg", "quals", "args"):
            yield from _filtered(quals.get(name), catalogue, tables)
    if quals["node"] == "OPEXPR" and catalogue.functions[quals["opfuncid"]][0] == "uuid_eq":
        for column, value in (quals["args"], quals["args"][::-1]):
            if column["node"] != "VAR" or column["varlevelsup"] != "0":
                continue
            relation = tables[int(column["varno"]) - 1].get("relid")
            is_argument = value["node"] in ("PARAM", "CONST") or (
                value["node"] == "SUBSCRIPTINGREF" and value["refexpr"]["node"] == "PARAM"
            )
            if column["varattno"] == catalogue.merchant_columns.get(str(relation)) and is_argument:
                yield column["varno"]
