"""Concurrent requests: payouts that are created while something breaks, and requests at the same moment."""

import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.harness.world import World


class Load:
    """Creates payouts in several threads until it is stopped. Repeats each request with its key until it gets a 201."""

    def __init__(self, world: World, api_urls: Sequence[str] = (), threads: int = 6, pause: float = 0.03) -> None:
        """Each thread uses one of the URLs, by default that of the world's sandbox, and pauses for `pause` seconds after a 201.

        By default there are enough requests per second for a kill to hit every phase. More would only take longer.
        """
        self.created: dict[str, str] = {}
        """Payout ids by idempotency key, which is also the merchant reference."""
        self.refused: list[httpx.Response] = []
        """The responses that were not a 201."""
        self.stopped = threading.Event()
        self._world = world
        self._pause = pause
        urls = itertools.islice(itertools.cycle(api_urls or [world.stack.api_url]), threads)
        self._threads = [threading.Thread(target=self._run, args=(url,), daemon=True) for url in urls]
        for thread in self._threads:
            thread.start()

    def _run(self, api_url: str) -> None:
        with httpx.Client(base_url=api_url, headers={"X-API-KEY": self._world.api_key}) as client:
            while not self.stopped.is_set():
                key = str(uuid.uuid4())
                body = self._world.payout_body("0001", amount="1.00", merchant_reference=key)
                while key not in self.created:
                    with contextlib.suppress(httpx.HTTPError):
                        response = client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": key}, timeout=10)
                        if response.status_code == 201:
                            self.created[key] = response.json()["id"]
                            self.stopped.wait(self._pause)
                        else:
                            self.refused.append(response)
                            assert response.status_code in (409, 503), response.text
                            assert response.json()["code"] in ("IDEMPOTENCY_KEY_IN_FLIGHT", "UNAVAILABLE")
                            time.sleep(0.05)  # polling in a tight loop would slow down the restart of the killed process

    def stop(self) -> None:
        """Wait until the requests in progress have got their 201."""
        self.stopped.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()


def run_concurrently(
    world: World, action: Callable[[int, httpx.Client], Any], threads: int, api_urls: Sequence[str] = ()
) -> list[Any]:
    """Run the action in all threads at the same moment, and return the results.

    Each thread has its own connection to one of the URLs, by default that of the world's sandbox.
    """
    gate = threading.Barrier(threads)
    urls = api_urls or [world.stack.api_url]

    def run(number: int) -> Any:
        with httpx.Client(base_url=urls[number % len(urls)], headers={"X-API-KEY": world.api_key}, timeout=120) as client:
            client.get("/health")  # connect before the race begins
            gate.wait(300)
            return action(number, client)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))
