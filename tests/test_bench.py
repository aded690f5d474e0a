"""Each benchmark runs, and parses and computes its figures correctly. No test asserts a speed."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sandbox.cli.benches.create import create_figures
from sandbox.cli.benches.e2e import Rate, parse_rate
from sandbox.cli.benches.load import LoadRun, open_load
from sandbox.cli.benches.machine import Machine
from sandbox.cli.benches.pgbench import parse_pgbench
from sandbox.cli.benches.receiver import Received
from sandbox.cli.benches.report import to_json
from sandbox.cli.benches.result import Result, percentile
from sandbox.cli.benches.stack import BenchError, Stack, create_merchant, open_stack
from sandbox.cli.benches.wrk import WrkRun, parse_wrk, run_wrk
from sandbox.cli.main import create_app
from sandbox.webhooks.signing.standard_webhooks import headers
from tests.harness.programs import needs

SECRET = bytes(range(32))
MACHINE = Machine("a CPU", 2, 4.0, "Linux 6", "18.1", "3.11", "0123456789ab", 0.5, 0.05)
KINDS = {"api", "worker", "postgres", "valkey", "supervisor", "total"}
needs_wrk = needs("wrk")


def test_the_figures_of_wrk_are_parsed_from_the_line_that_its_script_prints() -> None:
    line = '{"requests":800,"seconds":2.000000,"p50_ms":10.500,"p99_ms":30.000,"refused":1,"broken":2}'
    run = parse_wrk(f"Running 2s test @ http://127.0.0.1:8000/\n  2 threads and 64 connections\n{line}\n")
    assert run == WrkRun(800, 2.0, 10.5, 30.0, 1, 2)
    assert run.rps == 400
    assert parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n") is None
    assert parse_wrk('{"requests": 1}\n') is None


def test_the_figures_of_pgbench_are_parsed_unless_transactions_failed() -> None:
    output = "number of failed transactions: {} (0.000%)\nlatency average = 9.1 ms\ntps = 1751.250 (without initial)\n"
    assert parse_pgbench(output.format(0)) == 1751.25
    assert parse_pgbench(output.format(3)) is None
    assert parse_pgbench("pgbench: error: Run was aborted\n") is None


def test_a_ratio_compares_medians_at_the_better_number_of_clients() -> None:
    runs = [LoadRun(rps, rps / 100, rps / 10, 1000, 0, {"api": rps, "total": rps * 2}, {}, 2) for rps in (3000, 9000, 2000)]
    tps = {
        ("statements", 16): [900, 700, 800],
        ("statements", 64): [1000, 1100, 900],
        ("function", 16): [2000, 9000, 1900],
        ("function", 64): [1500, 1400, 1600],
    }
    found = to_json(Result(machine=MACHINE, figures=create_figures(runs, tps)))
    assert found.pop("rounds")["pgbench/function_64"] == [1500, 1400, 1600]
    assert found == {
        "http_rps": 3000,
        "p50_ms": 30,
        "p99_ms": 300,
        "unsettled": 0,
        "pgbench_statements_tps": 1000,
        "pgbench_function_tps": 2000,
        "ratio_statements": 3,
        "ratio_function": 1.5,
        "pgbench": {"statements_16": 800, "statements_64": 1000, "function_16": 2000, "function_64": 1500},
        "cpu_us_per_payout": {"api": 3000, "total": 6000},
        "loop_s": 0.05,
    }


@pytest.mark.parametrize(
    ("text", "rate"), [("200", Rate(200)), ("100000", Rate(100_000)), ("0.5x", Rate(0.5, True)), ("2x", Rate(2, True))]
)
def test_a_rate_is_a_number_or_a_fraction_of_the_top_rate(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "0x", "2.1x", "100001", "-1", "1.5", "x", "nan", "0.5 x", "٣"])
def test_other_texts_are_not_rates(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a rate\. Give creates per second, 1 to 100000, or a fraction"):
        parse_rate(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--merchants", "0"],
        ["create", "--merchants", "1001"],
        ["create", "--webhooks", "17"],
        ["create", "--seconds", "3601"],
        ["e2e", "--rate", "3x"],
        ["e2e", "--merchants", "1001"],
        ["growth", "--merchants", "0"],
    ],
)
def test_a_value_out_of_bounds_is_a_usage_error(arguments: list[str]) -> None:
    result = CliRunner().invoke(create_app(), ["bench", *arguments])
    assert result.exit_code == 2
    assert arguments[1] in result.output


def test_percentiles_are_computed_by_the_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert percentile([7.0], 99) == 7
    with pytest.raises(ValueError, match="no percentile"):
        percentile([], 50)


def test_the_receiver_counts_each_event_once_and_refuses_unsigned_webhooks() -> None:
    received = Received({"/0": SECRET})
    body = b'{"type":"payout.created","timestamp":"2026-01-01T00:00:00.000Z","data":{"id":"p1","amount":"1.00"}}'
    signed = headers("event-1", int(time.time()), body, [SECRET])
    received.record("/0", signed, body)
    received.record("/0", signed, body)
    received.record("/1", signed, body)  # signed with the secret of another endpoint
    received.record("/0", signed, body.replace(b"1.00", b"9.00"))
    no_payout = b'{"type":"bulk_credit.completed"}'
    received.record("/0", headers("event-2", int(time.time()), no_payout, [SECRET]), no_payout)
    assert list(received.arrived) == [("p1", "payout.created", "0")]
    assert (received.duplicates, received.refused, len(received.reasons)) == (1, 3, 3)


def test_a_missing_ready_file_is_reported(tmp_path: Path) -> None:
    result = CliRunner().invoke(create_app(), ["bench", "create", "--ready-file", str(tmp_path / "none.json")])
    assert result.exit_code == 1
    assert "is not a ready file" in result.output


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """One sandbox for the tests below, started in the same way as the benchmarks start theirs."""
    ready = tmp_path_factory.mktemp("bench") / "ready.json"
    with open_stack(None, 1, 1) as opened:
        fields = {name: getattr(opened, name) for name in ("api_url", "admin_key", "database_url")}
        ready.write_text(json.dumps(fields))
        yield opened, ready


def run(stack: tuple[Stack, Path], *arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(create_app(), ["bench", *arguments, "--json", "--ready-file", str(stack[1])])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def check_cpu(found: dict[str, Any]) -> None:
    """Check that CPU time is reported for each kind of process, and that the machine's speed is reported."""
    cpu = found["cpu_us_per_payout"]
    assert set(cpu) == KINDS
    assert min(cpu[kind] for kind in ("api", "worker", "postgres")) > 0
    assert cpu["total"] == pytest.approx(sum(cpu[kind] for kind in KINDS - {"total"}), abs=1)
    assert found["loop_s"] > 0


@pytest.mark.slow
@needs_wrk
def test_create_measures_http_and_pgbench_and_audits_the_ledger(
    stack: tuple[Stack, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.cli.benches.preload.BATCH", 20)  # three batches, which must follow each other
    output = tmp_path / "all.json"
    arguments = ["--seconds", "1", "--rounds", "1", "--connections", "4", "--preload", "50", "--output", str(output)]
    found = run(stack, "create", *arguments)
    check_cpu(found)
    assert min(found[name] for name in ("http_rps", "p50_ms", "p99_ms", "ratio_statements", "ratio_function")) > 0
    assert set(found["pgbench"]) == {"statements_16", "statements_64", "function_16", "function_64"}
    details = json.loads(output.read_text())
    assert details == found | {"machine": details["machine"], "command": details["command"]}
    assert details["stored_before"] == 50


def test_e2e_receives_every_event(stack: tuple[Stack, Path]) -> None:
    found = run(stack, "e2e", "--rate", "20", "--seconds", "1", "--connections", "4", "--drain", "60")
    assert {"behind", "backlog", "duplicates"} <= set(found)
    check_cpu(found)
    assert (found["rate"], found["sent"], found["delivered"], found["missing"]) == (20, 20, 20, 0)
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]


@pytest.mark.slow
def test_e2e_waits_for_every_endpoint_of_several_merchants_whose_secrets_differ(stack: tuple[Stack, Path]) -> None:
    arguments = ("--rate", "20", "--seconds", "1", "--merchants", "3", "--webhooks", "3", "--connections", "4")
    found = run(stack, "e2e", *arguments, "--drain", "60")
    assert (found["sent"], found["delivered"], found["missing"], found["events"]) == (20, 20, 0, 20 * 3 * 3)


@pytest.mark.slow
@needs_wrk
def test_e2e_takes_a_fraction_of_the_top_rate(stack: tuple[Stack, Path]) -> None:
    found = run(stack, "e2e", "--rate", "0.02x", "--seconds", "1", "--connections", "2", "--drain", "60")
    assert found["rate"] == found["sent"] == found["delivered"] >= 1


@pytest.mark.slow
@needs_wrk
def test_creates_of_several_merchants_reach_every_endpoint(stack: tuple[Stack, Path]) -> None:
    with open_load(stack[0], "bench test", connections=2, merchants=2, webhooks=2) as load:
        result = load.run(1)
        counts = [load.database.count_payouts([merchant]) for merchant in load.merchants]
    assert sum(counts) == result.created
    assert min(counts) > 0
    paths = [path for path, _ in load.received.ids]
    assert {path: paths.count(path) for path in paths} == {
        f"/{number}/{endpoint}": 3 * counts[number] for number in (0, 1) for endpoint in (0, 1)
    }


@pytest.mark.slow
@needs_wrk
def test_lone_measures_few_requests_at_a_time_a_test_and_memory(stack: tuple[Stack, Path]) -> None:
    found = run(stack, "lone", "--seconds", "1", "--rounds", "1")
    cases = {"1_connection", "4_connections", "64_merchants", "full_load"}
    assert set(found) == cases | {"cpu_us_per_test", "memory_mb", "loop_s"}
    for case in cases:
        assert found[case]["cpu_us_per_payout"]["api"] > 0
        assert found[case]["switches_per_payout"]["postgres"] > 0
        assert found[case]["transactions_per_payout"] > 0
    assert found["64_merchants"]["rate_to_full_load"] > 0
    assert found["memory_mb"]["after_10000_payouts"] > 0


@pytest.mark.slow
@needs_wrk
def test_dialect_compares_creates_in_it_with_native_ones(stack: tuple[Stack, Path]) -> None:
    found = run(stack, "dialect", "--name", "safepay", "--seconds", "1", "--rounds", "2", "--connections", "2")
    assert set(found) == {"native", "safepay", "ratio", "rounds", "loop_s"}
    for kind in ("native", "safepay"):
        check_cpu(found[kind] | {"loop_s": found["loop_s"]})
        assert min(found[kind]["http_rps"], found[kind]["p50_ms"]) > 0
    cpu = [found[kind]["cpu_us_per_payout"]["total"] for kind in ("safepay", "native")]
    assert found["ratio"]["cpu"] == pytest.approx(cpu[0] / cpu[1], abs=0.01)
    assert found["ratio"]["p50"] == pytest.approx(found["safepay"]["p50_ms"] / found["native"]["p50_ms"], abs=0.01)


@needs_wrk
def test_dialect_refuses_a_name_without_a_script(stack: tuple[Stack, Path]) -> None:
    result = CliRunner().invoke(create_app(), ["bench", "dialect", "--name", "none", "--ready-file", str(stack[1])])
    assert result.exit_code == 1
    assert "There is no dialect none that can be measured." in result.output


@pytest.mark.slow
def test_reads_measures_payout_reads_and_balance_reads(stack: tuple[Stack, Path]) -> None:
    found = run(stack, "reads", "--seconds", "1", "--rounds", "1", "--connections", "4")
    reads = ("payout", "balance")
    kinds = {f"{read}_rps" for read in reads} | {f"{read}_p99_ms" for read in reads}
    assert set(found) == kinds | {f"cpu_us_per_{read}_read" for read in reads} | {"loop_s"}
    assert min(found[name] for name in kinds) > 0
    assert all(found[f"cpu_us_per_{read}_read"]["api"] > 0 for read in reads)


@pytest.mark.slow
@needs_wrk
@pytest.mark.parametrize("arguments", [["age", "--payouts", "1"], ["neighbors", "--payouts", "20", "--merchants", "30"]])
def test_growth_measures_with_and_without_the_data(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.cli.benches.growth._AGING_SECONDS", 1)
    monkeypatch.setattr("sandbox.cli.benches.growth._MERCHANTS_PER_TRANSACTION", 20)  # two batches
    options = ["--seconds", "1", "--rounds", "1", "--connections", "4", "--json"]
    result = CliRunner().invoke(create_app(), ["bench", "growth", *arguments, *options])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["case"] == arguments[0]
    assert found["cpu_ratio"].keys() == {"postgres", "total"}
    assert min(found["cpu_ratio"].values()) > 0
    for data in ("without_data", "with_data"):
        assert set(found[data]["cpu_us_per_payout"]) == KINDS


def test_growth_refuses_an_unknown_case() -> None:
    result = CliRunner().invoke(create_app(), ["bench", "growth", "size"])
    assert result.exit_code == 2
    assert "'size' is not a case. Choose from: age, neighbors, payouts." in " ".join(result.output.replace("│", "").split())


@pytest.mark.slow
def test_startup_measures_a_start_with_and_without_existing_data() -> None:
    result = CliRunner().invoke(create_app(), ["bench", "startup", "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, float] = json.loads(result.stdout)
    assert set(found) == {f"{start}_{what}_seconds" for start in ("cold", "warm") for what in ("cpu", "wall")} | {"loop_s"}
    assert min(found.values()) > 0


@pytest.mark.slow
def test_wait_for_gets_a_response_to_every_held_request(stack: tuple[Stack, Path]) -> None:
    found = run(stack, "wait-for", "--rate", "20", "--held", "20", "--seconds", "1", "--connections", "4")
    assert (found["sent"], found["answered"], found["missing"]) == (40, 40, 0)
    check_cpu(found)
    assert found["held"] > 1
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]


@pytest.mark.slow
def test_consoles_show_every_payout(stack: tuple[Stack, Path]) -> None:
    found = run(stack, "consoles", "--consoles", "4", "--merchants", "2", "--seconds", "1", "--rounds", "1")
    assert found["not_shown"] == 0
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    assert found["api_cpu_percent"]["without"] > 0


def test_wait_for_refuses_more_held_requests_than_the_rate_allows(stack: tuple[Stack, Path]) -> None:
    result = CliRunner().invoke(
        create_app(), ["bench", "wait-for", "--rate", "1", "--held", "21", "--ready-file", str(stack[1])]
    )
    assert result.exit_code == 1
    assert "at most 20 can be held" in result.output


@pytest.mark.slow
def test_world_measures_each_step_while_another_merchant_creates_payouts(stack: tuple[Stack, Path]) -> None:
    found = run(stack, "world", "--payouts", "20", "--rounds", "1", "--clients", "1")
    assert set(found) == {"payouts", "rows", "create_ms", "snapshot_ms", "restore_ms", "reset_ms", "others"} | {
        "cpu_us_per_payout",
        "loop_s",
    }
    check_cpu(found)
    assert found["payouts"] == 20
    assert found["rows"] > 6 * 20  # two transfers, three events and the payout itself
    assert min(found[f"{step}_ms"] for step in ("create", "snapshot", "restore", "reset")) > 0


@pytest.mark.slow
def test_webhooks_are_compared_with_a_bare_client_and_measured_next_to_failing_endpoints(stack: tuple[Stack, Path]) -> None:
    found = run(stack, "webhooks", "--deliveries", "30", "--rate", "20", "--seconds", "1", "--rounds", "2")
    assert found["deliveries"] == 30
    for name in ("sandbox_per_second", "client_per_second", "p95_ms_next_to_working", "p95_ms_next_to_failing"):
        assert found[name] > 0
    rounds = found["rounds"]
    for ratio, sandbox, client in zip(rounds["ratio"], rounds["sandbox_per_second"], rounds["client_per_second"], strict=True):
        assert ratio == pytest.approx(sandbox / client, abs=0.001)
    assert set(found["cpu_us_per_payout"]) == KINDS


@pytest.mark.slow
@needs_wrk
def test_refused_creates_fail_the_benchmark(stack: tuple[Stack, Path]) -> None:
    merchant = create_merchant(stack[0], "bench test")
    merchant_with_wrong_key = type(merchant)(merchant.merchant_id, "sk_sandbox_unknown")
    with pytest.raises(BenchError, match=r"over HTTP, [1-9]\d* were refused"):
        run_wrk(stack[0], [merchant_with_wrong_key], 2, 5)
