"""The report's colours can be read, in the light scheme and in the dark one (WCAG 2.2, 1.4.3)."""

import re
from itertools import product
from pathlib import Path

import pytest

from nas.report.sheet import PALETTE

WORDS, MARKS = 4.5, 3.0
TEXTS = ("ink", "muted", "link", "named-text", "alarm")
SHAPES = ("front", "named", "other", "over", "alarm", "axis")
NUMBERS = "front"  # of the front's networks are text in the colour of their marks
SCHEMES = ("light", "dark")
CSS = (Path(__file__).parents[1] / "nas" / "report" / "report.css").read_text(encoding="utf-8")
Colour = tuple[int, int, int]


def _scheme(name: str) -> dict[str, Colour]:
    """The custom properties that are plain colours; the dark block comes second."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    assert len(blocks) == len(SCHEMES)
    found = re.findall(r"--([\w-]+): #([0-9a-f]{6});", blocks[SCHEMES.index(name)])
    return {key: (int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for key, c in found}


def _luminance(colour: Colour) -> float:
    shares = [c / 255 for c in colour]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(a: Colour, b: Colour) -> float:
    dark, light = sorted((_luminance(a), _luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def test_the_ratio_is_that_of_the_standard() -> None:
    assert _contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert _contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ground", ["paper", "card"])
def test_text_stands_out(scheme: str, ground: str) -> None:
    colours = _scheme(scheme)
    ratios = {name: _contrast(colours[name], colours[ground]) for name in TEXTS}
    ratios[NUMBERS] = _contrast(colours[NUMBERS], colours["paper"])
    assert min(ratios.values()) >= WORDS, ratios


@pytest.mark.parametrize("scheme", SCHEMES)
def test_marks_stand_out(scheme: str) -> None:
    colours = _scheme(scheme)
    ratios = {name: _contrast(colours[name], colours["paper"]) for name in SHAPES}
    parts = [("star", "card")]  # and what is mixed, upon what passes through
    for mixed, rest in product(("convolved", "attended"), ("soft", "gated")):
        parts += [(mixed, "card"), (rest, "card"), (mixed, rest)]
    ratios |= {f"{a} on {b}": _contrast(colours[a], colours[b]) for a, b in parts}
    assert min(ratios.values()) >= MARKS, ratios


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_has_each_colour_of_the_figures(scheme: str) -> None:
    assert set(PALETTE) <= set(_scheme(scheme))
    assert set(PALETTE) <= {*TEXTS, *SHAPES, "paper", "line"}


def test_what_scrolls_has_a_shadow_at_the_edge_that_paper_covers_at_the_end() -> None:
    (rule,) = re.findall(r"\.scrolled \{(.*?)\}", CSS, re.DOTALL)
    for side in ("left", "right"):
        assert re.search(rf"var\(--paper\) 50%, transparent\) {side} / .* local", rule)
        assert re.search(rf"var\(--shade\), transparent\) {side} / .* scroll", rule)


def test_every_colour_of_text_is_one_of_those() -> None:
    used = set(re.findall(r"(?<![\w-])color: var\(--([\w-]+)\)", CSS))
    used |= set(re.findall(r"text \{[^}]*fill: var\(--([\w-]+)\)", CSS))
    assert used <= {*TEXTS, "paper"}  # paper on ink: what is shown when pointing
    assert not re.search(r"(?<!-)color: #", CSS)
