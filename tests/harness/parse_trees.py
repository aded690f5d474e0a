"""The parse trees of SQL statements, as PostgreSQL makes them: tables, columns, types and functions are resolved."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

Tree = Mapping[str, Any]
"""A node: its type as `node`, and its fields. A list of nodes is a list, a null None, and anything else text."""

SELECT, UPDATE, INSERT, DELETE = "1", "2", "3", "4"
"""Values of a QUERY's `commandType`."""
RECORD = "2249"
"""The type of a row that has no type of its own."""

_TOKEN = re.compile(r"[(){}]|(?:\\.|[^\s(){}\\])+", re.DOTALL)
_SETTINGS = {
    "debug_print_parse": "on",
    "debug_pretty_print": "off",
    "client_min_messages": "log",
    "log_min_messages": "fatal",  # the trees are for this session, not for the server's log
}


def parse_tree(text: str) -> Tree:
    """Return a tree from PostgreSQL's own notation for nodes."""
    tokens = _TOKEN.findall(text)[::-1]
    tree: Tree = _value(tokens)
    assert not tokens
    return tree


def _value(tokens: list[str]) -> Any:
    token = tokens.pop()
    if token == "(":
        found = []
        while tokens[-1] != ")":
            found.append(_value(tokens))
        tokens.pop()
        return found
    if token != "{":
        if "\\" in token:
            token = re.sub(r"\\(.)", r"\1", token, flags=re.DOTALL)
        return None if token == "<>" else token.strip('"')
    node: dict[str, Any] = {"node": tokens.pop()}
    while (name := tokens.pop()) != "}":
        values = []
        while tokens[-1] != "}" and not tokens[-1].startswith(":"):
            values.append(_value(tokens))
        node[name[1:]] = values[0] if len(values) == 1 else values
    return node


def nodes(tree: object, *types: str) -> Iterator[Tree]:
    """Yield the nodes of a tree, itself included: all, or those of the given types."""
    remaining = [tree]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            if not types or value["node"] in types:
                yield value
            remaining += value.values()
        elif isinstance(value, list):
            remaining += value


@dataclass(frozen=True)
class Logged:
    """A statement that the server has parsed, as its tree in PostgreSQL's notation.

    `context` says which line of which function it is from; it is empty if the client sent the statement.
    """

    text: str
    context: str


class Parser:
    """A connection that shows the parse tree of each statement."""

    def __init__(self, conn: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.conn = conn
        self.logged: list[Logged] = []
        """All statements that the server has parsed, the oldest first."""
        conn.add_log_listener(self._on_message)

    @classmethod
    async def connect(cls, url: str) -> "Parser":
        """Connect as a superuser."""
        # Without the driver's cache, each execution of a statement is parsed.
        return cls(await asyncpg.connect(url, server_settings=_SETTINGS, statement_cache_size=0))

    async def parse(self, sql: str) -> Tree:
        """Return a statement's tree. Raises asyncpg's errors."""
        before = len(self.logged)
        await self.conn.prepare(sql)
        # Statements of the driver itself, which looks up types, may follow.
        return parse_tree(self.logged[before].text)

    def _on_message(self, _: object, message: Any) -> None:
        if message.message == "parse tree:":
            self.logged.append(Logged(message.detail, message.context or ""))
