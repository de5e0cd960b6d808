"""A figure in a page has the page's colours, and its points say what they are."""

import re
from xml.etree import ElementTree as ET

import pytest
from matplotlib.figure import Figure

from nas.report.html import inline_svg
from nas.report.sheet import (
    FRONT,
    INK,
    PALETTE,
    WIDE,
    new_figure,
    point_url,
    printable,
    style,
)

WORDS = "<script>alert('x')</script> \x1b[31m 5 % \udcff\n1.2345 ms"


def _figure() -> Figure:
    with style(WIDE):
        figure = new_figure(WIDE)
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        dots = axes.scatter([1, 2, 3], [1, 2, 3], color=FRONT)
        dots.set_urls([point_url(WORDS, stop=True), point_url("two"), point_url("three")])
        one = axes.scatter([1.5], [1], facecolors=PALETTE["paper"], edgecolors=INK)
        one.set_urls([point_url("four")])
        axes.axvline(2, color="#123456")
        axes.set_xlabel("x < 5 & $y$")
    return figure


@pytest.fixture
def svg() -> ET.Element:
    return ET.fromstring(inline_svg(_figure(), name="mine", label='a "label"', look="wide"))


def test_each_point_has_its_words(svg: ET.Element) -> None:
    points = svg.findall(".//g[@class='point']")
    assert [point.findtext("title") for point in points] == [
        "<script>alert('x')</script> \ufffd[31m 5 % \\udcff\n1.2345 ms",
        "two",
        "three",
        "four",
    ]
    assert all(len(point.findall(".//use")) == 1 for point in points)
    assert [point.get("tabindex") for point in points] == ["0", None, None, None]
    places = [float(point.find(".//use").get("x") or 0) for point in points]  # type: ignore[union-attr]
    assert places[0] < places[3] < places[1] < places[2]
    assert svg.findall(".//a") == []


def test_colours_are_those_of_the_page(svg: ET.Element) -> None:
    styles = [element.get("style", "") for element in svg.iter()]
    assert not re.search("#[0-9a-f]{6}", "".join(styles))
    names = set(re.findall(r"var\(--([\w-]+)\)", "".join(styles)))
    assert {"front", "paper", "ink", "line"} <= names <= set(PALETTE)  # an unknown one is ink


def test_it_says_what_it_is_and_keeps_its_ids_apart(svg: ET.Element) -> None:
    assert svg.attrib.keys() == {"viewBox", "class", "role", "aria-label"}
    assert (svg.get("role"), svg.get("aria-label")) == ("group", 'a "label"')
    ids = [id_ for element in svg.iter() if (id_ := element.get("id"))]
    assert all(id_.startswith("mine-") for id_ in ids)
    used = {element.get("href", "")[1:] for element in svg.iter("use")}
    clips = {clip[5:-1] for element in svg.iter() if (clip := element.get("clip-path"))}
    assert used | clips == set(ids)
    assert len(ids) == len(set(ids))


def test_a_figure_without_points_is_an_image_and_the_same_each_time() -> None:
    first, second = (_plain() for _ in range(2))
    assert first == second
    assert ET.fromstring(first).get("role") == "img"
    assert "x &lt; 5" in inline_svg(_figure(), name="a", label="b")


def _plain() -> str:
    figure = new_figure(WIDE)
    figure.add_axes((0.1, 0.1, 0.8, 0.8)).plot([1, 2])
    return inline_svg(figure, name="a", label="b")


@pytest.mark.parametrize(
    ("words", "shown"),
    [("two\nlines\t", "two\nlines\t"), ("\x1b[31mred", "\ufffd[31mred"), ("\udcff", "\\udcff")],
)
def test_what_cannot_be_shown_is_replaced(words: str, shown: str) -> None:
    assert printable(words) == shown
