"""A worker's `/health`, `/health/ready` and `/metrics`, served on SANDBOX_METRICS_PORT.

They share the event loop with the work, so a worker whose loop is blocked does not respond.
"""

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from sandbox.domain.errors import MEDIA_TYPE, Problem
from sandbox.infrastructure.metrics import exposition
from sandbox.server.readiness import Readiness
from sandbox.server.request_log import choose_request_id

_encode: Final = msgspec.json.Encoder().encode


class HealthServer:
    """Serve the worker's health checks and metrics. `public_url` is the base of the problem types' URLs."""

    def __init__(self, readiness: Readiness, public_url: str) -> None:
        self._readiness = readiness
        self._public_url = public_url
        app = web.Application()
        for path, handler in (("/health", _alive), ("/health/ready", self._ready), ("/metrics", _metrics)):
            app.router.add_get(path, handler)  # also handles HEAD
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError if the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
        await self._readiness.close()

    async def _ready(self, request: web.Request) -> web.Response:
        try:
            ready = await self._readiness.require()
        except Problem as problem:
            headers = [(name.lower().encode(), value.encode("utf-8", "replace")) for name, value in request.headers.items()]
            request_id = choose_request_id(headers)
            body = problem.body(self._public_url, request.path, request_id)
            return web.Response(
                body=body,
                status=problem.status,
                content_type=MEDIA_TYPE,
                headers={**problem.headers, "X-Request-Id": request_id},
            )
        return _json(ready)


async def _alive(_: web.Request) -> web.Response:
    return _json({"status": "alive"})


async def _metrics(_: web.Request) -> web.Response:
    body = await asyncio.to_thread(exposition)
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _json(value: object) -> web.Response:
    return web.Response(body=_encode(value), content_type="application/json")
