"""The command that a report gives is the one that makes the run."""

import subprocess

import pytest

from nas.cli.main import parser_for
from nas.report.html import command_of
from nas.study.options import SearchOptions
from nas.study.targets import Target

CASES = [
    SearchOptions(device="arm", budget_ms=10.0),
    SearchOptions(device="ssh://pi@10.0.0.3:22", budget_ms=0.1 + 0.2, threads=4, seed=7, trials=9),
    SearchOptions(device="cpu", budget_ms=1.0, space="fasternet-32", data="a b/'c'",
                  accuracy="train", epochs=4, progressive=("resolution", "images"),
                  classes=10, runtime="openvino"),
    SearchOptions(device="cpu", budget_ms=1e-5, data="digits", accuracy="supernet", weights="w x",
                  searcher="nsga2", precision="int8"),
    SearchOptions(device="cpu", budget_ms=5.0, resolutions=(192, 224), activations=("relu",),
                  classes=7),
    SearchOptions(device="pi1,pi2", budget_ms=10.0, threads=4, beside=(
        Target(device="ssh://pi@10.0.0.3:22", budget_ms=0.5, threads=4),
        Target(device="cpu", budget_ms=3.0, threads=4))),
    SearchOptions(device="pi", budget_ms=10.0, runtime="ncnn", beside=(
        Target(device="cpu", budget_ms=3.0, runtime="openvino", precision="bf16", threads=2),)),
]  # fmt: skip


@pytest.mark.parametrize("options", CASES)
def test_the_command_asks_for_what_the_options_say(options: SearchOptions) -> None:
    shell = ["sh", "-c", f"fasternas() {{ printf '%s\\n' \"$@\"; }}; {command_of(options)}"]
    words = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines()
    asked = parser_for(words).parse_args(words)
    for target in options.targets:
        for name, told in (("budget_ms", asked.budget), ("runtime", asked.runtime),
                           ("precision", asked.precision), ("threads", asked.threads)):  # fmt: skip
            of_each = told if isinstance(told, dict) else {target.device: told}
            assert of_each[target.device] == getattr(target, name)
    assert asked.device == [target.device for target in options.targets]
    for name in ("space", "trials", "seed", "searcher", "accuracy", "epochs", "progressive"):
        assert getattr(asked, name) == getattr(options, name)
    assert (asked.data or "", asked.weights or "") == (options.data, options.weights)
    assert (asked.resolution, asked.activation) == (options.resolutions, options.activations)
    assert asked.classes == (None if options.data else options.classes)
