"""A file that holds no config, or perhaps another than was meant, is refused in one line."""

from pathlib import Path

import pytest

from search_spaces.fasternet import FasterNetConfig
from search_spaces.formats import load_config

AUTHORS = "embed_dim: 40\nmlp_ratio: 2\nnorm_layer: BN\n"
OURS = "fasternas: 1\nwidths: [40, 80]\ndepths: [1, 2]\npartial_ratios: [1, 1]\nexpansions: [1, 1]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widths: [40, 80", r"The file must be YAML, but: while parsing a flow sequence .*line 1"),
        ("a: !!python/object:os.system {}", "The file must be YAML, but: could not determine"),
        ("a: \x00", "The file must be YAML, but: unacceptable character"),
        ("a: 2020-99-99", "The file must be YAML, but: month must be in"),
        ("a: " + "[" * 1000, "The file must be YAML, but: maximum recursion depth exceeded"),
        ("", "must hold a mapping of keys to values, but holds a NoneType"),
        ("- 40\n- 80", "must hold a mapping of keys to values, but holds a list"),
        (OURS[13:], "`fasternas` must be the version .* but got None. Begin the file with"),
        (OURS.replace("1", "true", 1), "`fasternas` must be the version .* but got True"),
        (OURS.replace("1", "'1'", 1), "`fasternas` must be the version .* but got '1'"),
        (OURS.replace("1", "2", 1), "`fasternas` must be at most 1, .* got 2. Update fasternas"),
        (
            OURS + "\nwdths: 1",
            "The keys must be among fasternas, widths, depths,.*, but got 'wdths'",
        ),
        (OURS + "\n7: 1", "The keys must be among .*, but got 7"),
        ("fasternas: 1\ndepths: [1]", "`widths` must be given, but is not there. Add `widths: "),
        ("fasternas: 1\nwidths: [8]", "`depths` must be given, but is not there"),
        (OURS.replace("[40, 80]", "40"), "`widths` must be a list with an entry .* but got 40"),
        (OURS.replace("[40, 80]", "[[40], 80]"), r"`widths` must be a list .* got \[\[40\], 80\]"),
        (OURS.replace("[40, 80]", "['40', 80]"), "`widths` must hold positive whole numbers only"),
        (OURS.replace("[1, 1]", "['1', 1]"), r"`partial_ratios` must hold .* got \('1', 1\.0\)"),
        (OURS.replace("[1, 1]", "[yes, 1]"), "`partial_ratios` must hold positive numbers only"),
        (OURS.replace("[1, 1]", "[1, 1, 1]"), "`partial_ratios` must be a tuple with one entry"),
        (
            OURS + "\nresolution: '224'",
            "`resolution` must be a positive whole number, but got '224'",
        ),
        (OURS + "\nactivation: [relu]", "`activation` must be relu or gelu"),
        (AUTHORS.replace("BN", "LN"), "`norm_layer` must be 'BN' .* but got 'LN'"),
        (
            OURS + "\nwidths: [8, 8]",
            "The keys must be there once each, .* 'widths' again in line 6",
        ),
        ("{fasternas: 1, widths: [8], widths: [9]}", "The keys .* got 'widths' again in line 1"),
        (AUTHORS + "embed_dim: 96", "The keys must .* 'embed_dim' again in line 4. Remove one"),
        (AUTHORS.replace("ratio", "ration"), "got 'mlp_ration', which is close to `mlp_ratio`"),
        (AUTHORS + "depth: [1]", "got 'depth', which is close to `depths`. Rename or remove it"),
        (AUTHORS + "Img_size: 192", "got 'Img_size', which is close to `image_size`"),
    ],
    ids=range(30),
)
def test_a_file_that_holds_no_config_is_refused_in_one_line(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"broken\.yaml: .*{message}") as refusal:
        load_config(path)
    assert "\n" not in str(refusal.value)


_NINES = [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 13)]
BOMB = f"[&a0 [x], {', '.join(_NINES)}]"  # 9^12 times x
KEYS = ("fasternas", *FasterNetConfig.__dataclass_fields__)
AUTHORS_KEYS = (
    "embed_dim",
    "depths",
    "mlp_ratio",
    "n_div",
    "feature_dim",
    "image_size",
    "patch_size",
    "patch_stride2",
    "norm_layer",
    "act_layer",
    "in_chans",
)


@pytest.mark.parametrize(
    ("text", "key"), [*((OURS, key) for key in KEYS), *((AUTHORS, key) for key in AUTHORS_KEYS)]
)
def test_a_value_that_unfolds_without_end_makes_one_short_line(
    text: str, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.yaml"
    others = [line for line in text.splitlines() if not line.startswith(key)]
    path.write_text("\n".join([*others, f"{key}: {BOMB}"]), encoding="utf-8")
    with pytest.raises(ValueError, match=f"`{key}` must") as refusal:
        load_config(path)
    assert len(str(refusal.value)) - len(str(path)) < 300


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "weights.yaml").write_bytes(b"\x80\x02\xff")
    with pytest.raises(ValueError, match=r"weights\.yaml: The file must be YAML, but: 'utf-8'"):
        load_config(tmp_path / "weights.yaml")
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(IsADirectoryError):
        load_config(tmp_path)
