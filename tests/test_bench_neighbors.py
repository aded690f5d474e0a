"""`psp bench neighbors` measures one merchant next to noisy ones, and fails if it feels them. No test asserts a speed."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from sandbox.cli.bench import neighbors
from sandbox.cli.benches.machine import Machine
from sandbox.cli.benches.neighbors import Failed, KindResult, Measured, Run, neighbors_result
from sandbox.cli.benches.noise import KINDS, parse_kinds
from sandbox.cli.benches.noise_process import NoiseTotals
from sandbox.cli.benches.quiet import Latencies
from sandbox.cli.benches.report import to_json
from sandbox.cli.main import create_app

MACHINE = Machine("a CPU", 2, 4.0, "Linux 6", "18.1", "3.11", "0123456789ab", 0.5, 0.05)


def measured(ms: float, statuses: dict[int, int] | None = None, missing: int = 0) -> Measured:
    latencies = Latencies([ms / 1000] * 90 + [ms / 100] * 10, statuses or {201: 100}, missing)
    return Measured(latencies, {"api": 0.25, "total": 0.5})


def kind(
    noise: Measured,
    made: dict[int, int],
    calm: tuple[Measured, Measured] = (measured(2), measured(4)),
    reasons: dict[int, str] | None = None,
) -> KindResult:
    return KindResult("nested", calm[0], noise, calm[1], NoiseTotals(made, 0.2, reasons or {}), 2.0)


def test_a_ratio_compares_the_noise_with_the_mean_of_the_calm_before_and_after() -> None:
    result = neighbors_result(MACHINE, [Run(1, [kind(measured(6), {400: 70})])], {})
    assert to_json(result)["runs"] == [
        {
            "processes": 1,
            "kinds": {
                "nested": {
                    "p50_ratio": 2.0,
                    "p50_ms": 6.0,
                    "p50_ms_in_calm": [2.0, 4.0],
                    "p95_ratio": 2.0,
                    "p95_ms": 60.0,
                    "p95_ms_in_calm": [20.0, 40.0],
                    "quiet_statuses": {"201": 100},
                    "quiet_statuses_in_calm": [{"201": 100}, {"201": 100}],
                    "noise_statuses": {"400": 70},
                    "noise_unanswered": 0,
                    "cores": {"api": 0.25, "total": 0.5},
                    "cores_in_calm": [0.5, 0.5],
                    "noise_process_cores": 0.1,
                }
            },
        }
    ]
    assert result.exceeded == []


@pytest.mark.parametrize(
    ("found", "exceeded"),
    [
        (kind(measured(9), {400: 1, 429: 1}), []),
        (kind(measured(12), {400: 1}), ["p50 is 4.0 times that in calm, more than 3"]),
        (kind(measured(18), {400: 1}), [f"p{p} is 6.0 times that in calm, more than {m}" for p, m in ((50, 3), (95, 5))]),
        (kind(measured(3, {201: 99, 503: 1}), {400: 1}), ["the quiet merchant got 1 x 503 with noise"]),
        (
            kind(measured(3), {0: 2, 400: 1, 503: 4}, reasons={400: "bad", 503: "full"}),
            ["the noise got 2 x no response", "the noise got 4 x 503 (full)"],
        ),
        (
            kind(measured(3), {200: 1}, (measured(3), measured(3, {429: 1, 201: 1}, missing=2))),
            [
                "the quiet merchant got 1 x 429 in calm afterwards",
                "2 webhooks of the quiet merchant did not arrive in calm afterwards",
            ],
        ),
        (Failed("nested", "a reason"), ["a reason"]),
    ],
)
def test_ratios_above_the_limits_and_5xx_are_reported(found: KindResult | Failed, exceeded: list[str]) -> None:
    result = neighbors_result(MACHINE, [Run(1, [found]), Run(2, [found])], {})
    assert result.exceeded == [
        f"nested, {processes}: {line}" for processes in ("1 API process", "2 API processes") for line in exceeded
    ]


def test_kinds_are_names_separated_by_commas() -> None:
    assert parse_kinds("nested, creates,nested") == ["nested", "creates"]
    for text in ("", "nested,", "loud"):
        with pytest.raises(ValueError, match=r"is not a kind of noise\. Choose from: creates, "):
            parse_kinds(text)


def test_the_help_describes_every_kind() -> None:
    _, _, listed = (neighbors.__doc__ or "").partition("Kinds: ")
    words = [word.strip(",.()") for word in listed.split()]
    assert [name for name in KINDS if name not in words] == []


@pytest.mark.parametrize(
    "arguments", [["--kinds", "loud"], ["--processes", "3"], ["--connections", "65"], ["--seconds", "0"], ["--seconds", "601"]]
)
def test_a_value_out_of_bounds_is_a_usage_error(arguments: list[str]) -> None:
    result = CliRunner().invoke(create_app(), ["bench", "neighbors", *arguments])
    assert result.exit_code == 2
    assert arguments[0] in result.output


@pytest.mark.slow
def test_noise_is_made_and_what_the_quiet_merchant_feels_is_measured() -> None:
    kinds = ["endpoints", "certify", "webhooks"]  # those that need little to be stored first
    options = ["--kinds", ",".join(kinds), "--processes", "1", "--seconds", "1", "--connections", "1", "--json"]
    result = CliRunner().invoke(create_app(), ["bench", "neighbors", *options])
    found: dict[str, Any] = json.loads(result.stdout)
    (run,) = found["runs"]
    assert list(run["kinds"]) == kinds
    for name, shown in run["kinds"].items():
        assert "error" not in shown, (name, shown)
        assert shown["quiet_statuses"]["201"] > 0
        assert {int(status) for status in shown["noise_statuses"]} & KINDS[name].expected
        assert 0 < shown["p50_ms"] <= shown["p95_ms"]
        assert shown["cores"]["api"] > 0
    assert not any("webhooks of the quiet merchant did not arrive" in line for line in found["exceeded"])
    assert result.exit_code == (1 if found["exceeded"] else 0)  # a busy machine may exceed the limits
    assert found["exceeded"] == [] or "CHECK_FAILED" in result.stderr
