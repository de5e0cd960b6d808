"""A network's stages as text."""

from networks import IRREGULAR

from nas.finetune.model_card import bar, rendered
from search_spaces.fasternet import FASTERNET


def test_each_part_has_a_line_that_says_what_it_is() -> None:
    lines = rendered(IRREGULAR).splitlines()
    firsts = ["", "stem", "stage 1", "merging", "stage 2", "merging", "stage 3", "head"]
    assert [line[:7].strip() for line in lines] == firsts
    assert lines[1].split() == ["stem", "24x24", "3", "to", "12", "conv", "2x2,", "stride", "2",
                                *lines[1].split()[-2:]]  # fmt: skip
    cells = lines[4].split()
    assert cells[:9] == ["stage", "2", "12x12", "20", "\u2588" * 12, "20", "30", "(x1.5)", "2"]
    assert "pool, conv 1x1, gelu, linear to 7" in lines[-1]


def test_the_shares_are_those_of_all_macs() -> None:
    for config in (IRREGULAR, FASTERNET["t0"]):
        shares = [float(line.split()[-2]) for line in rendered(config).splitlines()[1:]]
        assert abs(sum(shares) - 100) < 0.5
        assert min(shares) > 0


def test_a_bar_is_filled_by_the_partial_ratio() -> None:
    assert bar(0.25) == "\u2588" * 3 + "\u2591" * 9
    assert bar(1 / 3).count("\u2588") == 4
    assert bar(0.001).count("\u2588") == 1
    assert bar(1.0) == "\u2588" * 12
