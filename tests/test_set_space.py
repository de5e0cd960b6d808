"""Other choices for the fields of a space: `Space.with_choices`, and --set-space."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from quick import evaluate_here
from specs import on

from nas.cli.main import main
from nas.run_folder import read_only_run, start_run
from nas.study.options import FieldChoices, SearchOptions
from search_spaces.fasternet import SPACES, FasterNetConfig
from search_spaces.space import Space, each, oneof

Streams = pytest.CaptureFixture[str]
SPACE = SPACES["fasternet-32"]
SEARCH = ("search", "--device", "arm", "--budget", "20ms")


@dataclass(frozen=True)
class Cell:
    """A config of another kind."""

    width: int
    operators: tuple[str, ...] = ("conv", "pool")
    ratio: float = 0.5
    label: str | None = None


CELLS = Space(Cell, width=oneof(8, 16, 24), operators=each(oneof("conv"), oneof("pool", "skip")))


def test_a_field_takes_the_values_and_a_tuple_takes_them_at_each_place() -> None:
    space = CELLS.with_choices(
        {"width": (32, 16), "operators": ("skip", "conv"), "ratio": (1, 0.25), "label": ("a",)}
    )
    assert space.fields == {
        "width": oneof(16, 32),
        "operators": each(oneof("skip", "conv"), oneof("skip", "conv")),
        "ratio": oneof(0.25, 1.0),
        "label": "a",
    }
    assert space.size == 16
    assert CELLS.with_choices({}) is CELLS


def test_one_place_of_a_tuple_may_be_set_alone() -> None:
    space = CELLS.with_choices({"operators[1]": ("conv", "pool")})
    assert space.fields["operators"] == each(oneof("conv"), oneof("conv", "pool"))
    opened = CELLS.replace(operators=("conv", "pool")).with_choices({"operators[0]": ("skip",)})
    assert opened.fields["operators"] == each(oneof("skip"), oneof("pool"))


def test_one_place_of_tuples_that_are_chosen_as_a_whole_is_refused() -> None:
    space = CELLS.replace(operators=oneof(("conv", "pool"), ("pool", "skip")))
    with pytest.raises(ValueError, match=r"`operators` must be set as a whole, .* 2 whole tuples"):
        space.with_choices({"operators[1]": ("conv", "pool")})
    whole = space.with_choices({"operators": ("conv",)})
    assert whole.fields["operators"] == each(oneof("conv"), oneof("conv"))


def test_one_place_counts_whether_it_is_named_before_or_after_the_whole() -> None:
    for names in (("operators", "operators[1]"), ("operators[1]", "operators")):
        space = CELLS.with_choices({n: ("conv", "pool") if "[" in n else ("skip",) for n in names})
        assert space.fields["operators"] == each(oneof("skip"), oneof("conv", "pool"))


def test_sides_that_some_networks_of_a_space_could_not_have_are_refused() -> None:
    options = SearchOptions(devices=on("arm", 1.0), space="fasternet-32", resolutions=(8,))
    with pytest.raises(ValueError, match="`resolution` must be at least the total stride of 16 pi"):
        options.open_space()


def test_classes_that_are_chosen_are_refused_before_a_search(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from search_spaces.fasternet import SPACES\n"
        "from search_spaces.space import oneof\n"
        "SPACE = SPACES['fasternet-32'].replace(classes=oneof(10, 100))\n"
    )
    space = f"{tmp_path / 'own.py'}:SPACE"
    options = SearchOptions(devices=on("arm", 1.0), space=space)
    with pytest.raises(ValueError, match=r"`classes` must be one number, but .* 10, 100\. Say wh"):
        start_run(tmp_path / "run", options)
    assert not (tmp_path / "run").exists()
    assert replace(options, classes=7).open_space().sample(Random(0)).classes == 7


def test_what_a_space_leaves_to_the_config_class_is_opened_at_each_stage() -> None:
    space = SPACE.with_choices(
        {"kernels": (3, 5), "activations": ("relu", "hardswish"), "expansions[3]": (2,)}
    )
    configs = [space.sample(Random(seed)) for seed in range(60)]
    assert {kernel for config in configs for kernel in config.kernels} == {3, 5}
    assert {len(config.activations) for config in configs} == {4}
    assert {config.expansions[3] for config in configs} == {2.0}
    assert {config.expansions[2] for config in configs} == {1.0, 1.5, 2.0, 3.0}
    assert all(space.decode(space.encode(config)) == config for config in configs)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"kernel": (3,)}, r"`kernel` must be a field of FasterNetConfig, which has widths"),
        ({"kernels": (3, 3)}, r"`kernels` must be distinct whole numbers such as 3, but got 3,3\."),
        ({"kernels": (0.5,)}, r"`kernels` must be distinct whole numbers such as 3, but got 0\.5"),
        ({"partial_ratios": ("x",)}, r"`partial_ratios` must be distinct numbers such as 0\.25,"),
        ({"mlps": (3,)}, r"`mlps` must be distinct words such as plain, but got 3\."),
        ({"mlps": ("moon",)}, r"`mlps` must hold plain or star, but got 'moon'\."),
        ({"kernels[4]": (3,)}, r"`kernels\[4\]` must be kernels or one of kernels\[0\] to ker"),
        ({"resolution[0]": (32,)}, r"`resolution` must be set as a whole, but got resolution\[0\]"),
        ({"activations[0]": ("relu",)}, r"`activations` must be set as a whole, but got acti"),
        ({"partial_ratios": (0.01, 1)}, r"`partial_ratios` must leave PConv at least one channel"),
        ({"stem_stride": (2, 3), "stem": ("patch", "convs")}, r"`stem_stride` must be 1, 2 or 4"),
    ],
)
def test_what_no_config_could_have_is_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACE.with_choices(choices)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in a space that was changed on the command line."""
    folder = tmp_path_factory.mktemp("set") / "run"
    words = ["depths=1", "widths[0]=16", "partial_ratios=1/4,.5", "activation=relu", "params<=2M"]
    with pytest.MonkeyPatch.context() as patch:
        evaluate_here(patch)
        assert main([*SEARCH, "--trials", "8", "--set-space", *words, "--out", str(folder)]) == 0
    return folder


def _check(config: FasterNetConfig) -> None:
    assert (config.depths, config.widths[0], config.activation) == ((1, 1, 1, 1), 16, "relu")
    assert set(config.partial_ratios) <= {0.25, 0.5}


@pytest.mark.usefixtures("without_ray")
def test_a_search_has_no_other_choices_nor_has_it_when_it_goes_on(
    run: Path, capsys: Streams
) -> None:
    command = [*SEARCH, "--resume", "--out", str(run)]
    assert main([*command, "--trials", "10"]) == 0
    opened = read_only_run(run)
    assert len(opened.candidates()) == 10
    for one in opened.candidates():
        _check(one.config)
    assert opened.options.limits.given == {"params": 2_000_000}
    written = json.loads((run / "run.json").read_text())["options"]["choices"]
    assert written[2] == {"field": "partial_ratios", "values": [0.25, 0.5]}
    capsys.readouterr()
    assert main([*command, "--set-space", "depths=2"]) == 2
    assert (
        "has choices depths=1 widths[0]=16 partial_ratios=0.25,0.5 activation=relu, not depths=2"
        in capsys.readouterr().err
    )
    assert main(["report", str(run)]) == 0
    words = "--set-space depths=1 &#39;widths[0]=16&#39; partial_ratios=0.25,0.5 activation=relu"
    assert words in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("kernels", "argument --set-space: must be FIELD=VALUE[,VALUE...] or params<=N, macs<=N, "),
        ("kernels=", "argument --set-space: must not be empty"),
        ("weight<=3", "argument --set-space: must be FIELD=VALUE[,VALUE...] or params<=N"),
        ("params<=x", "argument --set-space: must be a number such as 4M, 600K or 1500000"),
        ("kernal=3", "`kernal` must be a field of FasterNetConfig, which has widths"),
        ("kernels=big", "`kernels` must be distinct whole numbers such as 3, but got big."),
        ("classes=7", "`classes` must be set by --classes, or by the data."),
        ("kernels=3 kernels=5", "`kernels` must be set once, but is set twice. Name all of its"),
        ("resolution=32 --resolution 32", "`resolution` must be set once, but is set twice."),
    ],
)
def test_mistakes_are_one_line(words: str, message: str, tmp_path: Path, capsys: Streams) -> None:
    command = [*SEARCH, "--set-space", *words.split(), "--out", str(tmp_path / "run")]
    try:
        code = main(command)
    except SystemExit as end:  # argparse's
        code = int(end.code or 0)
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "run").exists()


def test_options_say_their_choices_as_the_command_line_does() -> None:
    choices = (FieldChoices(field="kernels", values=(3, 5)),)
    options = SearchOptions(devices=on("arm", 1.0), choices=choices)
    assert options.spelled["choices"] == "kernels=3,5"
    assert options.open_space().fields["kernels"] == each(*[oneof(3, 5)] * 4)
    assert replace(options, choices=()).spelled["choices"] == ""
