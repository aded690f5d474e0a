"""A small model explains the results of several merchants' concurrent requests, even if API or worker processes are killed."""

import contextlib
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.lanes import ADVANCE, SLOTS, Call, Lane
from tests.harness.merchant_model import MerchantModel, outcomes
from tests.harness.own_sandbox import own_sandbox
from tests.harness.supervised import is_over, wait_for
from tests.harness.waiting import until
from tests.harness.world import Stack, World

API, WORKER = "ipn.with_api", "worker"
RICH, POOR = Decimal("1000000.00"), Decimal("1000.00")
_SETTING = "SANDBOX_MERCHANTS_PER_TRANSACTION"
"""Set it to 1 to run this file with sharing turned off."""
MERCHANTS = 5
RUNNING = 3
"""The first merchants have running clocks, so workers run their steps. The others have frozen clocks, so the API runs them."""
MAX_CALLS = 4
"""Maximum requests of one merchant in a burst. The model tries all orders of them, so the number must be small."""


@dataclass
class Sandbox:
    """A separate sandbox whose processes this file kills."""

    stack: Stack
    supervisor: psutil.Process

    def processes(self, module: str) -> list[psutil.Process]:
        """Return the two processes that run this module. Waits until a killed one has been restarted."""

        def find_both() -> list[psutil.Process] | None:
            found = []
            for child in self.supervisor.children():
                with contextlib.suppress(psutil.Error):
                    if module in child.cmdline()[:4] and not is_over(child):
                        found.append(child)
            return found if len(found) == 2 else None

        return wait_for(find_both, f"the restart of {module}")

    def kill(self, module: str, number: int) -> None:
        """SIGKILL one of the two processes. The supervisor starts it again."""
        victim = self.processes(module)[number]
        os.kill(victim.pid, signal.SIGKILL)
        wait_for(lambda: is_over(victim), "the end of a killed process")

    def merchants_per_transaction(self, loop: str) -> tuple[float, float]:
        """Return how many transactions there were, and how many of them were for several merchants."""
        text = httpx.get(f"{self.stack.api_url}/metrics", timeout=60).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found = {
            sample.name + sample.labels.get("le", ""): sample.value
            for sample in samples
            if sample.name.startswith("psp_batch_merchants") and sample.labels["loop"] == loop
        }
        return found["psp_batch_merchants_count"], found["psp_batch_merchants_count"] - found["psp_batch_merchants_bucket1.0"]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    arguments = ("--ephemeral", "--api-processes", "2", "--workers", "2")
    with own_sandbox(tmp_path_factory.mktemp("merchants"), *arguments, env={_SETTING: "64"} | os.environ) as (process, stack):
        yield Sandbox(stack, psutil.Process(process.pid))


@dataclass
class Merchant:
    """A merchant, and all states that the model can be in. `finish` keeps those that equal the sandbox's state."""

    world: World
    models: list[MerchantModel]
    is_frozen: bool
    ids: dict[str, str] = field(default_factory=dict)
    """Payout ids by merchant reference."""
    done: list[Call] = field(default_factory=list)

    def view(self) -> tuple[str, str, dict[str, str]]:
        """Return the same values as `MerchantModel.view`, read from the sandbox."""
        payouts, cursor = {}, None
        while True:
            page = self.world.get("/api/v1/payouts", limit=100, **({"cursor": cursor} if cursor else {})).json()
            payouts |= {payout["merchant_reference"]: payout["status"] for payout in page["data"]}
            if (cursor := page["next_cursor"]) is None:
                return (*self.world.balance(), payouts)

    def paths(self) -> dict[str, tuple[str, ...]]:
        """Return the states that each payout passed through, by its reference."""
        rows = self.world.stack.execute(
            "SELECT p.merchant_reference, array_agg(e.to_status ORDER BY e.change) AS path FROM payouts p "
            "JOIN events e ON e.merchant_id = p.merchant_id AND e.payout_id = p.id WHERE p.merchant_id = $1 GROUP BY 1",
            self.world.merchant_id,
        )
        return {row["merchant_reference"]: tuple(row["path"]) for row in rows}

    def finish(self, calls: list[Call]) -> None:
        """Find the states of the model that explain all responses, and wait until the sandbox is in one of them."""
        after = outcomes(self.models, [(call.apply, call.response.result) for call in calls if call.response is not None])
        assert after, [(call.path, call.body, call.response) for call in calls]

        def matching() -> list[MerchantModel]:
            try:
                view = self.view()
            except httpx.TransportError:
                return []  # the connection was to the API process that was killed
            return [model for model in after if model.view() == view]

        with contextlib.suppress(AssertionError):
            self.models = until(matching, 120)
            return
        assert self.view() == after[0].view()


@dataclass(frozen=True)
class Choice:
    """A randomly drawn request: which merchant sends what to which API process."""

    merchant: int
    kind: str
    lane: int
    is_sent_twice: bool
    """Whether it is sent to both API processes with the same idempotency key."""
    suffix: str
    amount: Decimal
    approval: bool
    which: int


CHOICES = st.builds(
    Choice,
    merchant=st.integers(0, MERCHANTS - 1),
    kind=st.sampled_from(
        ("create", "create", "create", "create", "approve", "cancel", "reject", "top up", "advance", "repeat")
    ),
    lane=st.integers(0, 1),
    is_sent_twice=st.sampled_from((False, False, True)),
    suffix=st.sampled_from(("0001", "0003", "0004", "0002", "0012", "0013", "0014")),
    amount=st.decimals("0.01", "700.00", places=2),
    approval=st.booleans(),
    which=st.integers(0, 99),
)
VICTIMS = st.sampled_from((None, None, None, (API, 0), (API, 1), (WORKER, 0), (WORKER, 1)))


def machine(sandbox: Sandbox) -> type[RuleBasedStateMachine]:
    """A machine that sends bursts of requests of several merchants, and kills a process in the middle of some bursts."""

    class Merchants(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.lanes: list[Lane] = []
            self.merchants: list[Merchant] = []
            self.is_settled = True
            for number in range(MERCHANTS):
                is_frozen = number >= RUNNING
                opening = POOR if is_frozen else RICH
                world = World.create(sandbox.stack, opening_balance=str(opening))
                if is_frozen:
                    assert world.post("/sandbox/v1/clock/freeze", {}).status_code == 200
                self.merchants.append(Merchant(world, [MerchantModel(opening)], is_frozen))

        @rule(choices=st.lists(CHOICES, min_size=10, max_size=SLOTS), victim=VICTIMS, moment=st.integers(0, 15))
        def burst(self, choices: list[Choice], victim: tuple[str, int] | None, moment: int) -> None:
            """Send requests at the same moment, kill a process `moment` milliseconds later, and check every merchant."""
            self.connect()
            self.is_settled = False
            calls: dict[int, list[Call]] = defaultdict(list)
            sent: list[tuple[Lane, int, Call]] = []
            # Suspended processes later handle everything that arrived in the meantime together: API processes the requests,
            # workers the payouts.
            workers = sandbox.processes(WORKER) if victim is None else []
            for process in (*workers, *(lane.process for lane in self.lanes)):
                process.suspend()
            try:
                for slot, choice in enumerate(choices):
                    call = self.call(choice, calls[choice.merchant])
                    if call is not None:
                        for lane in self.lanes if choice.is_sent_twice else [self.lanes[choice.lane]]:
                            lane.send(slot, call)
                            sent.append((lane, slot, call))
                for lane in self.lanes:
                    lane.process.resume()
                if victim is not None:
                    time.sleep(moment / 1000)  # at whatever moment it is killed, nothing must be lost or happen twice
                    sandbox.kill(*victim)
                unknown = [call for lane, slot, call in sent if not call.receive(lane.receive(slot))]
                for call in unknown:
                    call.repeat()
            finally:
                for process in (*workers, *(lane.process for lane in self.lanes)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.resume()
            for number, merchant in enumerate(self.merchants):
                self.remember(merchant, calls[number])
                merchant.finish([call for call in calls[number] if call not in merchant.done])
                merchant.done += [call for call in calls[number] if call not in merchant.done]
            self.is_settled = True

        def connect(self) -> None:
            """Connect to the current API processes, unless already connected."""
            processes = sandbox.processes(API)
            if [lane.process for lane in self.lanes] != processes:
                self.disconnect()
                first, second = processes
                self.lanes = [Lane(first, second, sandbox.stack.api_url), Lane(second, first, sandbox.stack.api_url)]

        def disconnect(self) -> None:
            for lane in self.lanes:
                lane.close()
            self.lanes = []

        def call(self, choice: Choice, others: list[Call]) -> Call | None:
            """Return the chosen request, and add it to `others`, its merchant's requests in this burst.

            Return None if it cannot be sent now.
            """
            merchant = self.merchants[choice.merchant]
            world = merchant.world
            if len(others) == MAX_CALLS or any(call.path == ADVANCE for call in others if call not in merchant.done):
                return None
            if choice.kind == "repeat":
                call = merchant.done[choice.which % len(merchant.done)] if merchant.done else None
                if call is None or call in others:
                    return None
            elif choice.kind == "create":
                suffix = choice.suffix
                if not merchant.is_frozen:
                    # Results must not depend on a worker's progress. So use no delays, and approve, cancel or reject only
                    # payouts that no worker changes.
                    suffix = "0004" if choice.approval else {"0003": "0003", "0004": "0004", "0014": "0003"}.get(suffix, "0001")
                body = world.payout_body(suffix, amount=str(choice.amount), requires_approval=choice.approval)
                reference = body["merchant_reference"]
                apply = partial(
                    MerchantModel.create, reference=reference, amount=choice.amount, suffix=suffix, approval=choice.approval
                )
                call = Call(world, "POST", "/api/v1/payouts", body, apply, reference)
            elif choice.kind == "advance" and merchant.is_frozen:
                if others:
                    return None  # an advance takes several transactions, and other requests would run between them
                seconds = (2, 30, 60, 120)[choice.which % 4]
                apply_advance = partial(MerchantModel.advance, seconds=seconds)
                call = Call(world, "POST", ADVANCE, {"seconds": seconds}, apply_advance)
            elif choice.kind in ("approve", "cancel", "reject"):
                targets = [name for name in merchant.ids if merchant.is_frozen or self.is_left_to_the_api(merchant, name)]
                if not targets:
                    return None
                reference = targets[choice.which % len(targets)]
                method = "POST" if choice.kind == "cancel" else "PATCH"
                path = f"/api/v1/payouts/{merchant.ids[reference]}/{choice.kind}"
                decide = partial(MerchantModel.decide, reference=reference, action=choice.kind)
                call = Call(world, method, path, {}, decide)
            else:
                amount = {"amount": str(choice.amount)}
                call = Call(
                    world, "POST", "/sandbox/v1/balance/top-up", amount, partial(MerchantModel.top_up, amount=choice.amount)
                )
            others.append(call)
            return call

        def is_left_to_the_api(self, merchant: Merchant, reference: str) -> bool:
            """Return whether no worker changes this payout's status."""
            return merchant.models[0].payouts[reference].suffix == "0004"

        def remember(self, merchant: Merchant, calls: list[Call]) -> None:
            for call in calls:
                assert call.response is not None
                if call.reference and call.response.status == 201:
                    merchant.ids[call.reference] = json.loads(call.response.content)["id"]

        def teardown(self) -> None:
            self.disconnect()
            for merchant in self.merchants if self.is_settled else ():
                paths = {name: payout.path for name, payout in merchant.models[0].payouts.items()}
                assert merchant.paths() == paths
                merchant.world.assert_clean()
            for merchant in self.merchants:
                merchant.world.client.close()

    return Merchants


def wake_a_worker_for_several_merchants(sandbox: Sandbox) -> None:
    """While no worker runs, give merchants payouts. A worker that continues finds them together, unlike in most bursts."""
    with contextlib.ExitStack() as opened:
        worlds = [opened.enter_context(World.create(sandbox.stack, opening_balance="1000.00")) for _ in range(8)]
        for process in sandbox.processes(WORKER):
            process.suspend()
            opened.callback(process.resume)
        created = [world.create_payout() for world in worlds]
        for process in sandbox.processes(WORKER):
            process.resume()
        for world, payout in zip(worlds, created, strict=True):
            world.wait_for(payout["id"], "SUCCESS")
            world.assert_clean()


def run_bursts(sandbox: Sandbox, examples: int, steps: int, *, derandomize: bool) -> None:
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        phases=(Phase.generate,),  # no shrinking: the timing of kills differs each time
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine(sandbox), settings=options)
    wake_a_worker_for_several_merchants(sandbox)
    for loop, minimum in (("api", examples), ("worker", 1)):
        transactions, shared = sandbox.merchants_per_transaction(loop)
        if os.environ.get(_SETTING) == "1":
            assert shared == 0, f"{loop}: no transaction must serve several merchants, but {shared} of {transactions} did"
        else:
            assert shared >= minimum, (
                f"{loop}: at least {minimum} transactions must serve several merchants, but {shared} of {transactions} did"
            )


def test_results_equal_the_models_even_if_processes_are_killed(sandbox: Sandbox) -> None:
    """The bursts and kills are the same in every run."""
    run_bursts(sandbox, 5, 6, derandomize=True)


@pytest.mark.slow
def test_results_of_random_requests_equal_the_models_even_if_processes_are_killed(sandbox: Sandbox) -> None:
    run_bursts(sandbox, 8, 10, derandomize=False)
