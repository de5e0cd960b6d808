"""A plane puts values where they belong, at any width, and its numbers are round."""

import pytest

from nas.report.svg_plane import Axis, Plane, with_margin


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis(low=0, high=100), ["0", "20", "40", "60", "80", "100"]),
        (Axis(low=-0.5, high=1.5), ["-0.5", "0.0", "0.5", "1.0", "1.5"]),
        (Axis(low=0.011, high=0.019), ["0.012", "0.014", "0.016", "0.018"]),
        (Axis(low=0.7, high=25, logarithmic=True), ["1", "2", "5", "10", "20"]),
        (Axis(low=0.21, high=0.24, logarithmic=True),
         ["0.210", "0.215", "0.220", "0.225", "0.230", "0.235", "0.240"]),
        (Axis(low=3, high=3), ["3"]),
    ],
)  # fmt: skip
def test_ticks_are_round_and_within(axis: Axis, expected: list[str]) -> None:
    ticks = axis.ticks()
    assert [words for _, words in ticks] == expected
    for value, words in ticks:
        assert float(words) == pytest.approx(value, abs=1e-9)


def test_values_lie_where_they_belong() -> None:
    assert Axis(low=1, high=3).share(1.5) == 0.25
    assert Axis(low=1, high=100, logarithmic=True).share(10) == pytest.approx(0.5)
    plane = Plane(across=Axis(low=0, high=4), up=Axis(low=0, high=10), height=200)
    assert (plane.x(1), plane.y(1)) == ("25.00%", "180.0")


@pytest.mark.parametrize("logarithmic", [False, True])
def test_what_lies_outside_is_at_the_edge(logarithmic: bool) -> None:  # noqa: FBT001
    axis = Axis(low=1, high=3, logarithmic=logarithmic)
    assert (axis.share(-5), axis.share(0), axis.share(99)) == (0, 0, 1)
    assert Axis(low=2, high=2, logarithmic=logarithmic).share(2) == 0.5


def test_stairs_go_across_before_they_go_up() -> None:
    plane = Plane(across=Axis(low=0, high=4), up=Axis(low=0, high=10), height=200)
    drawn = plane.stairs([(0, 0), (2, 10)], "front")
    assert drawn.count("<line") == 2
    assert drawn.index('x2="50.00%" y2="200.0"') < drawn.index('x2="50.00%" y2="0.0"')


def test_a_margin_leaves_room_even_about_one_value() -> None:
    assert with_margin([0.0, 10.0], 0.1) == (-1.0, 11.0)
    low, high = with_margin([5.0])
    assert low < 5.0 < high
    low, high = with_margin([0.0])
    assert low < 0.0 < high
