"""What is said of the knobs is no more than is known."""

from dataclasses import replace

import pytest

from nas.report.html_knobs import KnobView, gene_words, knob_finding, knob_section, unit_of
from nas.report.importance import Knob

KNOB = Knob(gene="depths[2]", before=None, after=None, down=False, accuracy=1.0,
            accuracy_error=0.1, ms=0.5, steps=3, free=False)  # fmt: skip
FREE = replace(KNOB, gene="expansions[0]", ms=1e-6, free=True)


def _finding(*knobs: Knob) -> str:
    return knob_finding(KnobView(knobs=knobs, kind="trained", unit_ms=0.1, trials=36))


def test_a_knob_that_is_best_for_sure_is_said_so() -> None:
    worse = replace(KNOB, gene="widths[0]", accuracy=0.4)
    assert _finding(KNOB, worse) == (
        "0.1 ms more is best spent on stage 3 depth: +0.2 \u00b1 0.02 points of accuracy, modelled."
    )


def test_rivals_and_what_is_unknown_are_named() -> None:
    rival = replace(KNOB, gene="stem_stride", accuracy=0.95, down=True)
    unknown = replace(KNOB, gene="activation", before="relu", after="gelu", accuracy_error=3.0)
    said = _finding(KNOB, rival, unknown)
    assert "is probably best spent on stage 3 depth" in said
    assert "As good, perhaps: a smaller stem stride." in said
    assert "Too uncertain to compare: activation gelu for relu." in said


def test_many_rivals_are_counted() -> None:
    rivals = [replace(KNOB, gene=f"widths[{i}]", accuracy=0.99) for i in range(4)]
    assert "stage 3 width and 1 other." in _finding(KNOB, *rivals)


def test_nothing_is_claimed_where_nothing_is_known() -> None:
    assert _finding(replace(KNOB, accuracy_error=1.1)) == (
        "By 36 trials no knob is known to gain anything by 0.1 ms more."
    )
    assert _finding(FREE) == "No knob takes time to speak of."
    empty = knob_section(KnobView(knobs=[], kind="proxy", unit_ms=1.0, trials=3))
    assert "Too little is known yet" in empty


def test_a_knob_that_takes_no_time_has_no_gain_for_it() -> None:
    section = knob_section(KnobView(knobs=[KNOB, FREE], kind="proxy", unit_ms=1.0, trials=36))
    assert "about no time" in section
    assert "nan" not in section
    assert section.count("<circle") == 1


@pytest.mark.parametrize(
    ("gene", "words"),
    [
        ("depths[2]", "stage 3 depth"), ("partial_ratios[0]", "stage 1 partial ratio"),
        ("stem_stride", "stem stride"), ("resolution", "resolution"), ("classes", "classes"),
    ],
)  # fmt: skip
def test_choices_have_names_that_people_use(gene: str, words: str) -> None:
    assert gene_words(gene) == words


@pytest.mark.parametrize(
    ("budget_ms", "unit_ms"), [(10, 1), (5, 1), (3, 0.1), (1, 0.1), (800, 100)]
)
def test_gains_are_said_for_a_part_of_the_budget(budget_ms: float, unit_ms: float) -> None:
    assert unit_of(budget_ms) == pytest.approx(unit_ms)
