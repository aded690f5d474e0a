"""An agent that calls the tools of `psp mcp`, over standard input and output or over HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent, Tool

from sandbox.cli.mcp_server.access import Access, Keys
from sandbox.cli.mcp_server.server import create_server
from tests.harness.world import Stack


@dataclass
class Agent:
    """An agent that calls tools. `seen` is everything it was told."""

    client: Client
    seen: list[str] = field(default_factory=list)

    async def __call__(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool, and return its data. Fails if the tool reports an error."""
        result = await self._call(name, arguments)
        assert not result.is_error, result
        assert isinstance(result.structured_content, dict)
        return result.structured_content

    async def refused(self, name: str, /, **arguments: Any) -> str:
        """Call a tool that must report an error with advice, and return the error's code."""
        result = await self._call(name, arguments)
        assert result.is_error, result
        if result.structured_content is None:
            # The protocol's library refuses the call itself.
            return self.seen[-1]
        error = result.structured_content["error"]
        assert error["detail"] in self.seen[-1]
        assert error["what_to_do"] in self.seen[-1]
        code: str = error["code"]
        return code

    async def tools(self) -> dict[str, Tool]:
        """Return the tools by name."""
        return {tool.name: tool for tool in (await self.client.list_tools()).tools}

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        result = await self.client.call_tool(name, arguments)
        texts = [content.text for content in result.content if isinstance(content, TextContent)]
        assert texts
        assert texts[0]
        self.seen += [json.dumps(result.structured_content), *texts]
        return result


@asynccontextmanager
async def agent_with(stack: Stack, keys: Keys, folder: Path | None = None) -> AsyncIterator[Agent]:
    """Yield an agent of a server in this process that has these keys and writes to this folder, as over stdio."""
    async with Client(create_server(Access(stack.api_url, keys, folder), keys)) as client:
        yield Agent(client)


@asynccontextmanager
async def agent_over_http(url: str, mode: str = "auto", **headers: str) -> AsyncIterator[Agent]:
    """Yield an agent of the server at this URL that sends these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        httpx2.AsyncClient(headers=named, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield Agent(client)
