"""The shapes of the console's charts stay inside the chart, and their scales are round numbers."""

from hypothesis import given
from hypothesis import strategies as st

from sandbox.console.charts import HEIGHT, WIDTH, bar_chart, line_chart, share

VALUES = st.lists(st.floats(0, 1e13), max_size=60)


@given(VALUES)
def test_lines_and_ticks_stay_inside(values: list[float]) -> None:
    chart = line_chart(values)
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
    assert [tick.label for tick in line_chart(["999000.00"]).ticks] == ["0", "500 k", "1 m"]
    assert [tick.label for tick in line_chart([7]).ticks] == ["0", "2.5", "5", "7.5"]
    assert [tick.label for tick in line_chart([]).ticks] == ["0", "0.5", "1"]


def test_a_small_share_can_be_seen() -> None:
    assert share(1, 100_000) == 1.0
    assert share(0, 5) == 0.0
    assert share(1, 4) == 25.0
