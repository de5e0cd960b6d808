"""A search's devices, each with its budget and with how it times."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from specs import on

from nas.cli.arguments import by_device, duration_ms
from nas.cli.main import main, parser_for
from nas.cli.specs import folder_name, specs_of
from nas.run_folder import read_only_run, start_run
from nas.study.options import SearchOptions
from predictors.measurement import Backend

Streams = pytest.CaptureFixture[str]
BOTH = ("--device", "arm", "--device", "cpu")
OPTIONS = SearchOptions(devices=(*on("arm", 10.0), *on("cpu", 3.0)), space="fasternet-32")


def _asked(*words: str) -> argparse.Namespace:
    return parser_for(["search"]).parse_args(["search", *words])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10ms", 10.0),
        ("pi=10ms", {"pi": 10.0}),
        ("pi=10ms,cpu=3ms", {"pi": 10.0, "cpu": 3.0}),
        ("pi=10ms, cpu=3ms", {"pi": 10.0, "cpu": 3.0}),
        ("pi1,pi2=10ms,cpu=800us", {"pi1,pi2": 10.0, "cpu": 0.8}),
        ("cpu=3ms,ssh://a@b:22,ssh://a@c=1s", {"cpu": 3.0, "ssh://a@b:22,ssh://a@c": 1000.0}),
    ],
)
def test_a_value_for_each_device_is_read(text: str, expected: Any) -> None:
    assert by_device(duration_ms)(text) == expected


@pytest.mark.parametrize(
    "text", ["pi=", "=10ms", "pi=10ms,cpu", "pi=10ms,", "pi=1ms,pi=2ms", "pi=10ms,=3ms", "pi=x"]
)
def test_what_is_none_is_refused(text: str, capsys: Streams) -> None:
    with pytest.raises(SystemExit):
        _asked(*BOTH, "--budget", text)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "argument --budget: must be a" in err


def test_each_device_has_its_budget_and_times_as_told() -> None:
    asked = _asked(*BOTH, "--budget", "cpu=3ms,arm=10ms", "--threads", "cpu=2,arm=4")
    assert specs_of(asked, run=None) == (
        *on("arm", 10.0, Backend(threads=4)),
        *on("cpu", 3.0, Backend(threads=2)),
    )
    assert folder_name(asked) == "arm-10ms-cpu-3ms"
    alone = _asked("--budget", "3ms")
    assert specs_of(alone, run=None) == on("cpu", 3.0)
    assert folder_name(alone) == "cpu-3ms"
    named = _asked("--device", "cpu", "--budget", "cpu=3ms")
    assert specs_of(named, run=None) == on("cpu", 3.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (*BOTH, "--budget", "10ms"),
            "given for each device, but is 10 ms for all. Say --budget arm=10ms,cpu=10ms.",
        ),
        (
            (*BOTH, "--budget", "cpu=3ms"),
            "given for each device, but is not for arm. Say --budget arm=10ms,cpu=3ms.",
        ),
        (
            (*BOTH, "--budget", "arm=1ms,cpu=3ms,pi=9ms"),
            "`budget` must name devices of the search (arm, cpu), but names pi.",
        ),
        (
            ("--device", "arm", "--budget", "cpu=3ms"),
            "`budget` must name devices of the search (arm), but names cpu.",
        ),
        (
            (*BOTH, "--budget", "arm=1ms,cpu=3ms", "--threads", "pi=4"),
            "`threads` must name devices of the search (arm, cpu), but names pi.",
        ),
        (
            (*BOTH, *BOTH, "--budget", "arm=1ms,cpu=3ms"),
            "`device` must name each device once, but names arm twice.",
        ),
    ],
)
def test_budgets_that_do_not_fit_the_devices_are_one_line(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: Streams
) -> None:
    assert main(["search", *words, "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not (tmp_path / "run").exists()


def test_options_come_back_from_json() -> None:
    written = json.loads(json.dumps(OPTIONS.as_json()))
    assert SearchOptions.from_json(written) == OPTIONS
    assert OPTIONS.budgets_ms == {"arm": 10.0, "cpu": 3.0}


CPU = {"name": "cpu", "backends": [{"runtime": "onnxruntime"}], "budget_ms": 1.0}


@pytest.mark.parametrize(
    "devices",
    ["cpu", [3], [{**CPU, "name": 3}], [{**CPU, "budget_ms": "1"}], [{"budget_ms": 1.0}]],
)
def test_devices_in_run_json_that_are_none_are_refused(devices: object) -> None:
    with pytest.raises(ValueError, match=r"as a search wrote them, but: .*`\$\.devices"):
        SearchOptions.from_json({"devices": devices})


@pytest.mark.parametrize("devices", [[], [CPU, CPU], [{**CPU, "budget_ms": None}]])
def test_devices_in_run_json_that_are_not_those_of_a_search_are_refused(devices: object) -> None:
    with pytest.raises(ValueError, match=r"`device` must name|`budget` must be given"):
        SearchOptions.from_json({"devices": devices})


def test_options_in_run_json_that_are_unknown_are_refused() -> None:
    with pytest.raises(ValueError, match="as a search wrote them, but beside is none of them"):
        SearchOptions.from_json({"devices": [CPU], "beside": []})


def test_a_run_with_another_budget_on_one_device_is_another_study(
    tmp_path: Path, capsys: Streams
) -> None:
    start_run(tmp_path / "run", OPTIONS).close()
    assert read_only_run(tmp_path / "run").options == OPTIONS
    command = ["search", *BOTH, "--space", "fasternet-32", "--resume", "--out"]
    assert main([*command, str(tmp_path / "run"), "--budget", "arm=10ms,cpu=4ms"]) == 2
    assert "has devices" in capsys.readouterr().err
