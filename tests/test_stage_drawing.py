"""A network's stages as text."""

import re
from dataclasses import replace

from networks import FAMILY, IRREGULAR

from nas.finetune.model_card import bar, rendered
from nas.report.tables import architecture_words, stages_of
from search_spaces.fasternet import FASTERNET


def test_each_part_has_a_line_that_says_what_it_is() -> None:
    lines = rendered(IRREGULAR).splitlines()
    firsts = ["", "stem", "stage 1", "merging", "stage 2", "merging", "stage 3", "head"]
    assert [line[:7].strip() for line in lines] == firsts
    assert lines[1].split() == [
        "stem",
        "24x24",
        "3",
        "to",
        "12",
        "conv",
        "2x2,",
        "stride",
        "2",
        *lines[1].split()[-2:],
    ]
    cells = lines[4].split()
    assert cells[:9] == ["stage", "2", "12x12", "20", "\u2588" * 12, "20", "30", "(x1.5)", "2"]
    assert "pool, conv 1x1, gelu, linear to 7" in lines[-1]


def test_ingredients_are_said_in_words() -> None:
    lines = rendered(FAMILY).splitlines()
    firsts = ["", "stem", "stage 1", "merging", "stage 2", "merging", "stage 3", "head"]
    assert [line[:7].strip() for line in lines] == firsts  # the last stage is not there
    assert lines[0].endswith("with")
    assert "3 to 16" in lines[1]
    assert "two conv 3x3, strides 2 and 2" in lines[1]
    assert lines[2].endswith("kernel 2x2, 2 groups, gate on 8, star, hardswish")
    assert "\u2588" * 12 + " 24" in lines[4]  # all of the channels
    assert lines[4].endswith("fused 4x4, relu")
    assert lines[6].endswith("attention on 8, gate on 24, gelu")
    assert "32 to 7" in lines[-1]
    assert "pool, linear to 7" in lines[-1]
    assert "with" not in rendered(FASTERNET["t0"])


def test_words_name_the_fields_that_are_unlike_the_published() -> None:
    assert architecture_words(FAMILY) == [
        "widths 16 24 32",
        "depths 1 1 2",
        "partial ratios 0.5 0.5 0.25",
        "expansions 2 1.5 2",
        "kernels 2 4 7",
        "groups 2 1 1",
        "untouched gate identity gate",
        "mixers pconv pconv attention",
        "expands plain fused plain",
        "mlps star plain plain",
        "hardswish relu gelu, 48 px, stem stride 4, two 3x3, no head",
    ]
    t0 = architecture_words(FASTERNET["t0"])
    assert t0[4:] == ["gelu, 224 px, stem stride 4, head 1280"]


def test_a_gate_without_channels_to_scale_is_none() -> None:
    whole = replace(FAMILY, partial_ratios=(1.0,) * 4)
    assert not any(stage.gate for stage in stages_of(whole))
    fused = replace(FAMILY, untouched=("identity", "gate", "gate", "gate"))
    assert not stages_of(fused)[1].gate


def test_the_shares_are_those_of_all_macs() -> None:
    for config in (IRREGULAR, FASTERNET["t0"], FAMILY):
        found = re.findall(r"([\d.]+) %", rendered(config))
        shares = [float(share) for share in found]
        assert abs(sum(shares) - 100) < 0.5
        assert min(shares) > 0 or config.head_width == 0  # then little is left for the head


def test_a_bar_is_filled_by_the_partial_ratio() -> None:
    assert bar(0.25) == "\u2588" * 3 + "\u2591" * 9
    assert bar(1 / 3).count("\u2588") == 4
    assert bar(0.001).count("\u2588") == 1
    assert bar(1.0) == "\u2588" * 12
