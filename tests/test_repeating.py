"""The command that a report gives is the one that makes the run."""

import subprocess
from pathlib import Path

import pytest
from specs import on

from nas.cli.main import parser_for
from nas.cli.search import fill, limits_of
from nas.cli.specs import specs_of
from nas.report.html import command_of
from nas.study.options import FieldChoices, SearchOptions
from predictors.cost import Limits
from predictors.measurement import Backend

FOUR, SSH = Backend(threads=4), "ssh://pi@10.0.0.3:22"
CASES = [
    SearchOptions(devices=on("arm", 10.0)),
    SearchOptions(devices=on(SSH, 0.1 + 0.2, FOUR), seed=7, trials=9),
    SearchOptions(
        devices=on("cpu", 1.0, Backend("openvino")),
        space="fasternet-32",
        data="a b/'c'",
        accuracy="train",
        epochs=4,
        progressive=("resolution", "images"),
        classes=10,
    ),
    SearchOptions(
        devices=on("cpu", 1e-5, Backend(), Backend(precision="int8")),
        data="digits",
        accuracy="train",
        searcher="nsga2",
        init="/weights/t0.pth",
        flip=False,
    ),
    SearchOptions(devices=on("cpu", 5.0), resolutions=(192, 224), activations=("relu",), classes=7),
    SearchOptions(
        devices=on("cpu", 5.0, Backend(precision="int8")),
        choices=(
            FieldChoices(field="kernels[3]", values=(3, 5)),
            FieldChoices(field="partial_ratios", values=(0.25, 1)),
            FieldChoices(field="activation", values=("relu",)),
        ),
        limits=Limits(
            params=4_000_000, macs=1, file_bytes=8_000_001, memory_bytes=2, precision="int8"
        ),
    ),
    SearchOptions(devices=(*on("pi1,pi2", 10.0, FOUR), *on(SSH, 0.5, FOUR), *on("cpu", 3.0, FOUR))),
    SearchOptions(
        devices=(*on("pi", 10.0, Backend("ncnn")), *on("cpu", 3.0, Backend("openvino", "bf16", 2)))
    ),
]


@pytest.mark.parametrize("options", CASES)
def test_the_command_asks_for_what_the_options_say(options: SearchOptions) -> None:
    shell = ["sh", "-c", f"fasternas() {{ printf '%s\\n' \"$@\"; }}; {command_of(options)}"]
    words = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines()
    asked = parser_for(words).parse_args(words)
    fill(asked)
    assert specs_of(asked, run=None) == options.devices
    names = ("space", "trials", "seed", "searcher", "accuracy", "epochs", "progressive", "flip")
    for name in names:
        assert getattr(asked, name) == getattr(options, name)
    assert (asked.data or "") == options.data
    assert (asked.init or "") == options.init
    assert (asked.resolution, asked.activation) == (options.resolutions, options.activations)
    choices = tuple(one for one in asked.set_space if isinstance(one, FieldChoices))
    assert choices == options.choices
    assert limits_of(asked, Path(), options.devices) == options.limits
    assert asked.classes == (None if options.data else options.classes)


def test_how_networks_were_to_be_trained_is_left_out_where_none_was() -> None:
    options = SearchOptions(devices=on("cpu", 5.0), epochs=16, progressive=("images",), flip=False)
    assert command_of(options) == command_of(SearchOptions(devices=on("cpu", 5.0)))
