"""Configs survive the way through YAML, the authors' keys and timm's, or are refused."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from search_spaces.fasternet import FASTERNET, SPACES, Activation, FasterNetConfig
from search_spaces.formats import (
    from_authors_yaml,
    load_config,
    save_config,
    to_authors_yaml,
    to_timm,
)
from search_spaces.network import from_timm_weights
from search_spaces.timm_models import import_timm

T0 = FASTERNET["t0"]

# cfg/fasternet_t2.yaml of github.com/JierunChen/FasterNet, its training options shortened.
AUTHORS_T2 = """\
strategy: ddp
image_size: 224
multi_scale: !!str 192_280   # image_size 192 before epoch 280
model_name: fasternet
mlp_ratio: 2
embed_dim: 96
depths: [1, 2, 8, 2]
feature_dim: 1280
patch_size: 4
patch_stride: 4
patch_size2: 2
patch_stride2: 2
layer_scale_init_value: 0 # no layer scale
drop_path_rate: 0.05
norm_layer:  BN
act_layer: RELU
n_div: 4
mixup: 0.1
batch_size: 2048
"""


def _uniform(seed: int) -> FasterNetConfig:
    """A random config that the authors and timm can say."""
    rng = Random(seed)
    stages, width = rng.randint(1, 5), rng.randint(8, 99)
    activation: Activation = rng.choice(("gelu", "relu"))
    return FasterNetConfig(
        widths=tuple(width * 2**i for i in range(stages)),
        activation=activation,
        depths=tuple(rng.randint(1, 20) for _ in range(stages)),
        partial_ratios=(1 / rng.randint(1, 8),) * stages,
        expansions=(rng.choice((1.0, 1.5, 2.0, 3.25, 4.0)),) * stages,
        resolution=rng.randint(64, 320),
        stem_stride=rng.choice((1, 2, 4)),
        head_width=rng.randint(1, 2000),
        classes=rng.randint(1, 2000),
    )


@pytest.mark.parametrize("name", SPACES)
def test_yaml_files_give_back_what_was_saved(name: str, tmp_path: Path) -> None:
    rng, path = Random(1), tmp_path / "config.yaml"
    for _ in range(30):
        config = SPACES[name].sample(rng)
        save_config(config, path)
        assert load_config(path) == config
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_yaml_files_keep_activations_that_are_all_the_networks_own(tmp_path: Path) -> None:
    same = replace(T0, activations=(T0.activation,) * 4)
    save_config(same, tmp_path / "same.yaml")
    assert load_config(tmp_path / "same.yaml") == same != T0


def test_yaml_files_keep_every_bit_of_a_ratio(tmp_path: Path) -> None:
    odd = replace(T0, partial_ratios=(1 / 3, 0.1, 1 / 7, 1.0), expansions=(1e-1, 1.1, 1e2, 2))
    save_config(odd, tmp_path / "odd.yaml")
    again = load_config(str(tmp_path / "odd.yaml"))
    assert again == odd
    assert all(isinstance(v, float) for v in (*again.partial_ratios, *again.expansions))


def test_a_saved_file_is_short_yaml_below_its_comment(tmp_path: Path) -> None:
    save_config(T0, tmp_path / "t0.yaml", comment="29.9 ms\npredicted")
    lines = (tmp_path / "t0.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[:4] == ["# 29.9 ms", "# predicted", "fasternas: 1", "widths: [40, 80, 160, 320]"]
    assert len(lines) == 12
    assert load_config(tmp_path / "t0.yaml") == T0


def test_a_comment_may_hold_what_yaml_does_not_allow(tmp_path: Path) -> None:
    save_config(T0, tmp_path / "t0.yaml", comment="a\0b\x1b[1m\x0cc\ud800\tok: 29 \u00b5s\u2028d")
    first, second, _ = (tmp_path / "t0.yaml").read_text(encoding="utf-8").split("\n", 2)
    assert (first, second) == (r"# a\x00b\x1b[1m\x0cc\ud800" + "\tok: 29 \u00b5s", "# d")
    assert load_config(tmp_path / "t0.yaml") == T0


def test_a_key_may_override_what_was_merged(tmp_path: Path) -> None:
    text = "<<: {fasternas: 1, depths: [9, 9, 9, 9], widths: [96, 192, 384, 768]}\ndepths: "
    (tmp_path / "t2.yaml").write_text(text + "[1, 2, 8, 2]")
    assert load_config(tmp_path / "t2.yaml") == FASTERNET["t2"]


def test_a_file_by_hand_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    (tmp_path / "t2.yaml").write_text(
        "fasternas: 1\ndepths: [1, 2, 8, 2]\nwidths: [96, 192, 384, 768]\nexpansions: [2, 2, 2, 2]"
    )
    assert load_config(tmp_path / "t2.yaml") == FASTERNET["t2"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    save_config(T0, path)

    def full(self: Path, *_: object, **__: object) -> None:
        self.touch()  # the file is there, its content is not
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_config(FASTERNET["l"], path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
    assert load_config(path) == T0
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        save_config(T0, tmp_path / "absent" / "config.yaml")


def test_the_authors_files_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "fasternet_t2.yaml").write_text(AUTHORS_T2, encoding="utf-8")
    assert load_config(tmp_path / "fasternet_t2.yaml") == FASTERNET["t2"]


def test_what_the_authors_leave_out_is_their_default() -> None:
    assert from_authors_yaml({"embed_dim": 96, "n_div": 4}) == FASTERNET["t2"]


ROUNDED = r"`expansions` must give timm 115 hidden .* of 100, .* int\(100 \* 1\.15\) is 114"


def test_the_way_through_others_and_back_changes_nothing() -> None:
    for config in (*FASTERNET.values(), *map(_uniform, range(60))):
        written = yaml.safe_load(yaml.safe_dump(to_authors_yaml(config)))
        assert from_authors_yaml(written) == config
        timm = to_timm(config)
        assert timm.pop("act_layer").__name__.lower() == config.activation  # type: ignore[attr-defined]
        assert timm.pop("merge_size") == 2
        assert from_authors_yaml(written | timm) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partial_ratios": (0.25, 0.25, 0.25, 0.5)}, "`partial_ratios` must be the same in all"),
        ({"partial_ratios": (0.3,) * 4}, r"`partial_ratios` must be 1/n_div .* is 0\.333"),
        ({"expansions": (2.0, 2.0, 3.0, 2.0)}, "`expansions` must be the same in all stages"),
        ({"widths": (100, 200, 400, 800), "expansions": (1.15,) * 4}, ROUNDED),
        ({"widths": (40, 80, 160, 256)}, r"`widths` must double .* got \(40, 80, 160, 256\)"),
        *[
            ({name: value}, f"`{name}` must be as FasterNet was published to be said to ")
            for name, value in {
                "kernels": (3, 3, 3, 5),
                "groups": (1, 2, 1, 1),
                "untouched": ("gate",) * 4,
                "mixers": ("pconv", "pconv", "pconv", "attention"),
                "expands": ("fused",) * 4,
                "mlps": ("star",) * 4,
                "stem": "convs",
                "head_width": 0,
                "depths": (1, 2, 8, 0),
                "activation": "hardswish",
                "activations": ("relu", "gelu", "gelu", "gelu"),
            }.items()
        ],
    ],
)
def test_what_others_cannot_say_is_refused(change: dict[str, Any], message: str) -> None:
    config = replace(T0, **change)
    for write in (to_authors_yaml, to_timm):
        with pytest.raises(ValueError, match=message):
            write(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_layer": "LN"}, "`norm_layer` must be 'BN' in a FasterNetConfig, but got 'LN'"),
        ({"layer_scale_init_value": 1e-6}, "`layer_scale_init_value` must be 0"),
        ({"patch_stride": 2}, "`patch_stride` must be 4"),
        ({"patch_size2": 3}, "`patch_size2` must be 2"),
        ({"patch_norm": False}, "`patch_norm` must be True"),
        ({"act_layer": "SILU"}, "`act_layer` must be GELU or ReLU, but got 'SILU'"),
        ({"n_div": 2.5}, r"`n_div` must be a positive whole number, but got 2\.5"),
        ({"embed_dim": "96"}, "`embed_dim` must be a positive whole number, but got '96'"),
        ({"depths": 3}, "`depths` must be a list with an entry for each stage"),
        ({"mlp_ratio": "2"}, "`mlp_ratio` must be a positive number, but got '2'"),
        ({"mlp_ratio": float("inf")}, "`mlp_ratio` must be a positive number, but got inf"),
        ({"mlp_ratio": 1.15, "embed_dim": 100}, ROUNDED),
        ({"image_size": "224"}, "`image_size` must be a positive whole number, but got '224'"),
        ({"image_size": 31}, "`resolution` must be at least the total stride"),
        ({"depths": [1, 2, 8, 0]}, r"`depths` must hold positive .* got \(1, 2, 8, 0\): with the"),
        ({"widths": [96, 192, 384, 768]}, r"`widths` must be left out beside .*, but got \[96,"),
        ({"classes": 10}, "`classes` must be left out beside the authors' keys, but got 10: it is"),
        ({"num_classes": 0}, "`num_classes` must be a positive whole number, but got 0"),
    ],
)
def test_authors_yaml_that_is_no_config_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_authors_yaml({**yaml.safe_load(AUTHORS_T2), **change})


def test_timm_builds_the_network_that_the_arguments_say() -> None:
    config = _uniform(3)
    timm = import_timm()
    for theirs in (
        timm.models.fasternet.FasterNet(**to_timm(config)),
        timm.create_model("fasternet_t0", **to_timm(config)),
    ):
        from_timm_weights(config, theirs.state_dict())  # refuses weights of another network
        assert type(theirs.act).__name__.lower() == config.activation


def test_reading_a_config_needs_no_torch(tmp_path: Path) -> None:
    save_config(T0, tmp_path / "t0.yaml")
    code = (
        "import sys; from search_spaces.formats import load_config, to_authors_yaml\n"
        "assert 'yaml' not in sys.modules\n"
        "to_authors_yaml(load_config(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "t0.yaml"], check=True)
