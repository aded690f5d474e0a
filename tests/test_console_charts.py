"""The shapes of the console's charts stay inside the chart, and their scales are round numbers."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sandbox.domain.clock import render
from sandbox.server.console.charts import HEIGHT, WIDTH, bar_chart, line_chart, share

VALUES = st.lists(st.floats(0, 1e13), max_size=60)


def times(count: int, seconds: int = 60) -> list[str]:
    return [render(datetime(2026, 1, 31, tzinfo=UTC) + timedelta(seconds=seconds * number)) for number in range(count)]


@given(VALUES, st.integers(0, 10**6))
def test_lines_and_ticks_stay_inside(values: list[float], seconds: int) -> None:
    chart = line_chart(times(len(values), seconds), values)
    points = [tuple(map(float, point.split(","))) for line in chart.lines for point in line.split()]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert all(0 <= tick.y <= HEIGHT for tick in chart.ticks)
    assert 2 <= len(chart.ticks) <= 5


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=60))
def test_stacked_bars_stay_inside_and_touch(values: list[tuple[int, int]]) -> None:
    lower, upper = [one for one, _ in values], [two for _, two in values]
    chart = bar_chart(lower, upper)
    for below, above in zip(*chart.stacks, strict=True):
        assert abs(above.y + above.height - below.y) <= 0.11
        assert above.y >= 0
        assert above.x + above.width <= WIDTH


def test_scales_are_round_numbers() -> None:
    assert [tick.label for tick in line_chart(times(1), ["999000.00"]).ticks] == ["0", "500 k", "1 M"]
    assert [tick.label for tick in line_chart(times(1), [7]).ticks] == ["0", "2.5", "5", "7.5"]
    assert [tick.label for tick in line_chart([], []).ticks] == ["0", "0.5", "1"]


def test_a_small_share_can_be_seen() -> None:
    assert share(1, 100_000) == 1.0
    assert share(0, 5) == 0.0
    assert share(1, 4) == 25.0


def test_a_value_holds_until_the_next_one() -> None:
    (line,) = line_chart([times(1)[0], times(4)[3]], [0, 3]).lines
    points = [tuple(map(float, point.split(","))) for point in line.split()]
    assert [x for x, _ in points] == [64.0, 412.0, 412.0, 412.0]
    assert points[0][1] == points[1][1] > points[2][1] == points[3][1]
