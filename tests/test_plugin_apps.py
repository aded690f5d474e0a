"""`live_app`: the application under test on a port of its own, with its webhook endpoint and its secret."""

import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from wsgiref.simple_server import make_server

import flask
import httpx
import litestar
import pytest
import standardwebhooks

from psp_sandbox.testing import AppError, Sandbox, StartApp, UsageError, World
from psp_sandbox.testing.live_app import interface_of
from psp_sandbox.testing.webhooks import Received
from tests.harness.world import Stack

SUCCEEDED = ["payout.created", "payout.processing", "payout.succeeded"]


class Shop:
    """A WSGI and an ASGI application that verify their webhooks, pay on request and keep what they got."""

    def __init__(self, psp_url: str, api_key: str, webhook_secret: str) -> None:
        self.secret = standardwebhooks.Webhook(webhook_secret)
        self.got: list[str] = []
        self.started: list[str] = []
        self._psp = {"url": f"{psp_url}/api/v1/payouts", "headers": {"X-API-KEY": api_key, "X-IDEMPOTENCY-KEY": "order-1"}}

    def hook(self, body: bytes, headers: Mapping[str, str]) -> int:
        try:
            self.got.append(self.secret.verify(body, dict(headers))["type"])
        except standardwebhooks.WebhookVerificationError:
            return 401
        return 200

    def buy(self) -> str:
        body = {"merchant_reference": "order-1", "amount": "10.00", "dest_type": "BANK", "bank_code": "HBL"}
        paid = httpx.post(json={**body, "account_number": "12345678900001"}, **self._psp)
        return str(paid.raise_for_status().json()["id"])

    def wsgi(self) -> flask.Flask:
        app = flask.Flask("shop")
        app.post("/webhooks")(lambda: ("thanks", self.hook(flask.request.get_data(), flask.request.headers)))
        app.post("/buy")(self.buy)
        return app

    def asgi(self) -> litestar.Litestar:
        @litestar.post("/webhooks")
        async def hook(request: litestar.Request[Any, Any, Any]) -> litestar.Response[str]:
            return litestar.Response("thanks", status_code=self.hook(await request.body(), request.headers))

        @litestar.post("/buy", sync_to_thread=True)
        def buy() -> str:
            return self.buy()

        @asynccontextmanager
        async def lifespan(app: litestar.Litestar) -> AsyncIterator[None]:
            self.started.append("up")
            yield
            self.started.append("down")

        return litestar.Litestar([hook, buy], lifespan=[lifespan])


@pytest.mark.parametrize("make", [Shop.wsgi, Shop.asgi], ids=["wsgi", "asgi"])
def test_an_application_pays_and_gets_its_webhooks(psp: World, live_app: StartApp, make: Callable[[Shop], Any]) -> None:
    shops: list[Shop] = []

    def create_app(psp_url: str, api_key: str, webhook_secret: str) -> Any:
        shops.append(Shop(psp_url, api_key, webhook_secret))
        return make(shops[0])

    app = live_app(create_app)
    payout_id = app.client.post("/buy").raise_for_status().text
    assert psp.next_payout(reference="order-1").id == payout_id
    assert psp.webhooks(payout_id).types == shops[0].got == SUCCEEDED
    assert [(one.status, one.answer) for one in psp.webhooks.received] == [(200, b"thanks")] * 3


@pytest.mark.parametrize("make", [Shop.wsgi, Shop.asgi], ids=["wsgi", "asgi"])
def test_an_application_that_answers_a_webhook_can_be_restarted_by_a_request_to_it(
    psp: World, live_app: StartApp, make: Callable[[Shop], Any]
) -> None:
    app = live_app(lambda env: make(Shop(env["PSP_URL"], env["PSP_API_KEY"], env["PSP_WEBHOOK_SECRET"])))
    # "/buy" repeats the call that made the payout, as an application does that finds it unanswered when it starts.
    repeated: list[bool] = []

    def restart(received: Received) -> bool:
        repeated.append(app.client.post("/buy", timeout=5).is_success)
        return False

    psp.received.on_answer = restart
    app.client.post("/buy").raise_for_status()
    assert psp.webhooks.types == SUCCEEDED
    assert repeated == [True] * 3


def test_the_lifespan_of_an_asgi_application_runs_and_it_stops_with_the_test(psp_sandbox: Sandbox, stack: Stack) -> None:
    from psp_sandbox.testing.options import read_marks

    world = World(psp_sandbox, read_marks([], "test"))
    shop = Shop("", "", world.webhook_secret)
    app = world.live_app(shop.asgi())
    assert shop.started == ["up"]
    world.close()
    assert shop.started == ["up", "down"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(app.url)
    assert "PSP_WEBHOOK_SECRET" not in os.environ


def test_the_clock_of_the_process_can_be_frozen_with_the_merchants(psp: World, live_app: StartApp) -> None:
    host = datetime.now(UTC)
    at = datetime(host.year + 5, 1, 1, tzinfo=UTC)
    assert psp.freeze(at, process=True) == at == datetime.now(UTC)
    shop = Shop(psp.url, psp.api_key, psp.webhook_secret)
    live_app(shop.wsgi())
    payout = psp.pays("returned")
    psp.advance("1m")
    assert datetime.now(UTC) == at + timedelta(minutes=1)
    # The application compares the time of each webhook with its own clock.
    assert shop.got == psp.webhooks(payout).types == [*SUCCEEDED, "payout.returned"]
    psp.resume()
    assert datetime.now(UTC) < at
    psp.pays("success", reference="later")
    psp.drain()
    assert len(shop.got) == len(psp.webhooks) == 7


def test_a_request_that_the_sandbox_did_not_send_is_not_a_webhook(psp: World, live_app: StartApp) -> None:
    app = live_app(Shop(psp.url, psp.api_key, psp.webhook_secret).wsgi())
    forged = b'{"id": "x", "type": "payout.succeeded", "timestamp": "2030-01-01T00:00:00Z", "data": {}}'
    assert app.client.post("/webhooks", content=forged).status_code == 401
    assert psp.webhooks.types == []
    assert [(one.problem, one.status) for one in psp.webhooks.received] == [("the header webhook-timestamp is missing", 401)]


def test_an_application_that_fails_is_recorded_as_a_500(psp: World, live_app: StartApp) -> None:
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("asgi")

    def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise RuntimeError("wsgi")

    psp.allow_failed_deliveries = True
    live_app(asgi)
    live_app(wsgi)
    psp.pays("pending")
    assert {one.status for one in psp.webhooks.received} == {500}
    assert None not in {one.answered_at for one in psp.webhooks.received}
    assert psp.webhooks.types == ["payout.created"]
    assert [len(one.received) for one in psp.webhooks] == [2]


def test_a_factory_gets_what_it_asks_for(psp: World, live_app: StartApp) -> None:
    asked: dict[str, Any] = {}

    def create_app(
        url: str, port: int, webhook_url: str, env: dict[str, str], *, database: str, psp: World, timeout: float = 5
    ) -> flask.Flask:
        asked.update(locals())
        asked["variables"] = {name: os.environ[name] for name in env}
        return flask.Flask("shop")

    app = live_app(create_app, path="/hooks/psp", database="sqlite://")
    assert asked["psp"] is psp
    assert (asked["url"], asked["port"], asked["webhook_url"]) == (app.url, app.port, f"{app.url}/hooks/psp")
    assert (asked["database"], asked["timeout"]) == ("sqlite://", 5)
    assert asked["env"] == asked["variables"] == {**psp.env, "PORT": str(app.port)}
    assert [(one.id, one.url) for one in psp.client.webhook_endpoints.list()] == [(app.endpoint_id, app.webhook_url)]


def test_several_applications_have_endpoints_of_their_own(psp: World, live_app: StartApp) -> None:
    def create_app(webhook_secret: str) -> Any:
        return Shop(psp.url, psp.api_key, webhook_secret).asgi()

    first = live_app(create_app)
    second = live_app(create_app, endpoint={"event_types": ["payout.succeeded"]})
    assert first.webhook_secret != second.webhook_secret
    psp.pays("success")
    assert psp.webhooks.types == SUCCEEDED
    assert [len(one.received) for one in psp.webhooks] == [1, 1, 2]


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        (lambda databse: None, {}, r"requires 'databse'. live_app passes api_key, .*, settings; pass anything else"),
        (lambda: 5, {}, "5 is neither an ASGI nor a WSGI application"),
        (
            flask.Flask("shop"),
            {"database": "x"},
            "is an application, not a function that returns one, so it cannot be given database",
        ),
    ],
)
def test_what_is_not_an_application_is_explained(
    psp: World, live_app: StartApp, target: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(AppError, match=message):
        live_app(target, **arguments)


def test_a_wrong_path_is_explained(psp: World, live_app: StartApp) -> None:
    with pytest.raises(UsageError, match="must begin with /"):
        live_app(flask.Flask("shop"), path="webhooks")


def test_an_application_that_does_not_start_says_why(psp: World, live_app: StartApp) -> None:
    @asynccontextmanager
    async def lifespan(app: litestar.Litestar) -> AsyncIterator[None]:
        raise RuntimeError("the database is not there")
        yield

    with pytest.raises(AppError, match=r"(?s)did not start: .*the database is not there"):
        live_app(litestar.Litestar([], lifespan=[lifespan]))


async def asgi_function(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi_function(environ: Any, start_response: Any) -> Any: ...


def factory(psp_url: str, api_key: str) -> Any: ...


async def async_factory() -> Any: ...


@pytest.mark.parametrize(
    ("target", "interface"),
    [
        (asgi_function, "asgi"), (litestar.Litestar([]), "asgi"), (wsgi_function, "wsgi"), (flask.Flask("x"), "wsgi"),
        (factory, None), (async_factory, None), (flask.Flask, None), (lambda: None, None),
    ],
)  # fmt: skip
def test_the_interface_of_an_application_is_recognized(target: Any, interface: str | None) -> None:
    assert interface_of(target) == interface


def test_an_application_that_the_test_starts_itself_gets_the_plugins_webhooks(psp: World) -> None:
    shop = Shop(psp.url, psp.api_key, psp.webhook_secret)
    with make_server("127.0.0.1", 0, shop.wsgi()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            psp.forward_webhooks(f"http://127.0.0.1:{server.server_port}/webhooks")
            payout = psp.payout(shop.buy())
            assert psp.webhooks(payout).types == SUCCEEDED == shop.got
            assert {(one.status, one.answer) for one in psp.webhooks.received} == {(200, b"thanks")}
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.psp(allow_failed_deliveries=True)
def test_an_application_that_does_not_answer_fails_the_delivery(psp: World) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        psp.forward_webhooks(f"http://127.0.0.1:{unused.getsockname()[1]}/webhooks")
        psp.pays("pending")
        psp.drain()
    assert [one.status for one in psp.webhooks.received] == [502]


def test_webhooks_are_not_forwarded_beside_live_app(psp: World, live_app: StartApp) -> None:
    with pytest.raises(UsageError, match="not a URL"):
        psp.forward_webhooks("localhost:3000")
    live_app(Shop(psp.url, psp.api_key, psp.webhook_secret).wsgi())
    with pytest.raises(UsageError, match="Use either it or live_app"):
        psp.forward_webhooks("http://127.0.0.1:3000/webhooks")
